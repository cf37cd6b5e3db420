"""The programs that the platform is compared with, written as the author of a notebook would write them.

They train with Keras alone. From fmnist_exp they take the reading of the images, and the race's recipe `same` its Muon.
"""
