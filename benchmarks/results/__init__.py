"""The fits that docs/results.md needs, and the page itself; `python -m benchmarks.systems` makes both."""
