"""Scores from probabilities: accuracy, calibration, the comparison of two models, and robustness to corruptions.

Nothing here draws, logs or loads a model.
"""
