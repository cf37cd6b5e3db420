"""Export a Keras model as a folder that can be served anywhere: an MLflow model with ONNX, requirements and checksums.

Nothing here talks to a tracking store.
"""
