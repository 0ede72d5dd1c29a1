"""Train on the pruned shards: sampler, loop, learning rate, checkpoints, preemption, run folder."""
