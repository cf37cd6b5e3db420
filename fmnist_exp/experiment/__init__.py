"""One declared experiment, whole: resolve it, build, fit, evaluate and log it, alone or as a trial of a search.

What only a search needs belongs in `tuning`.
"""
