"""Train, tune, compare, register and serve Fashion-MNIST classifiers."""

import os

# Keras and TensorFlow read these when they are imported, which any module below may do first.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
