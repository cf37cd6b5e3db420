"""The programs that the platform is compared with, written as the author of a notebook would write them.

They train with Keras alone; the only thing that they take from fmnist_exp is the reading of the images.
"""
