"""A Keras model becomes a folder that serves anywhere: an MLflow model with ONNX, locked requirements and checksums.

Nothing here talks to a tracking store.
"""
