"""One file a question, each runnable as `python -m benchmarks.NAME`."""
