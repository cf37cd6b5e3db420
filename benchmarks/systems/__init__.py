"""The published systems, the platform's own networks and the same recipes in plain Keras: train them, write a page."""
