"""Published recipes in plain Keras, as a notebook's author would type them: nothing of fmnist_exp in the training."""
