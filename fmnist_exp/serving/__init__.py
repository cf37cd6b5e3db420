"""From a registered version to answers, with NumPy, pandas and ONNX Runtime only."""
