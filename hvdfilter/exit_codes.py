"""The exit codes of every command, and what they mean."""

FAILURE, BAD_INPUT, STOPPED = 1, 2, 75

WORDS = """exit codes:
  0    done
  1    failed: a broken installation, ranks that cannot work together, memory, a full disk, a rank
       that went silent; of doctor: something is wrong
  2    bad input: options, files, data, names; one sentence says which
  75   stopped by the scheduler after a checkpoint: the same command with --resume true goes on
  128+N, or -N: ended by signal N (130: Ctrl-C)"""
