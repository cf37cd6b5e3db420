"""The search: its space, study, driver, objectives, recovery, refit and retention.

Optuna is imported in this package only. A trial is one experiment; the code that runs it belongs in `experiment`.
"""
