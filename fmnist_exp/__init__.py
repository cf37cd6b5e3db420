"""Train, tune, compare, register and serve Fashion-MNIST classifiers."""
