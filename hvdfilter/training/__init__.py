"""Train on the pruned shards: loop, learning rate, checkpoints, preemption, run folder."""
