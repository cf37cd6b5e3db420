"""Train, tune, compare, register and serve Fashion-MNIST classifiers."""

import os
import platform

# Keras and TensorFlow read these when they are imported, which any module below may do first.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if platform.machine() in ("x86_64", "AMD64"):
    # By itself, TensorFlow computes with oneDNN only on processors with AVX-512 VNNI or newer instructions. On those
    # whose latest are AVX2, its other kernels take three times as long for a step of cnn_fast (docs/performance.md).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
