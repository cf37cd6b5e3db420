"""The set-up of Keras on TensorFlow or JAX: threads, seeds, precision, fast layers and interrupts.

Modules here deal with libraries and hardware, not with experiments, images or MLflow. Only this package imports
TensorFlow.
"""
