"""Draw scores and images as matplotlib figures.

The figures of a run, a comparison and a robustness test belong here; those of a study belong in `tuning.report`.
Nothing here uses pyplot, so that figures are safe in any thread.
"""
