"""On the module path of a test's processes, where Python imports `sitecustomize` at its start."""
