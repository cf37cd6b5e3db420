"""A search, whole: its space, study, driver, objectives, recovery, refit and retention.

Optuna is imported in this package only. One trial is one experiment, which belongs in `experiment`.
"""
