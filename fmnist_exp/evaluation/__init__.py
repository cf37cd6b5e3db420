"""Probabilities become numbers: accuracy, calibration, the comparison of two models, and corrupted test images.

Nothing here draws, logs or loads a model.
"""
