"""The search over an experiment's `search.space`. The only package that imports Optuna."""
