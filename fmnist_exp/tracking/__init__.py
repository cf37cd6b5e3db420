"""The only code that writes runs to MLflow, and the tracking store that it writes to.

The names of all tags, metrics and artifacts stand in `names`. Versions of the registered model belong in `registry`.
"""
