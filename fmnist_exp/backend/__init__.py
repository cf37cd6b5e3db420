"""The process that computes: Keras on TensorFlow or JAX, its threads, seeds, precision, fast layers and interrupts.

Modules here know libraries and hardware, but neither experiments nor images nor MLflow. Only this
package imports TensorFlow.
"""
