"""An interpreter of NVIDIA's machine code (SASS), so that kernels can be run and counted anywhere.

It executes what nvcc made, on real data, with all threads of some blocks side by side in numpy.
What it computes can therefore be held against a reference, and what it counts is what the hardware
would issue. An instruction it does not know is an error that names it, never skipped.

It is no clock: it knows nothing of latencies, caches, dual issue or bank conflicts.
"""
