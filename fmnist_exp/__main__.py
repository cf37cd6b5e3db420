"""Run the command line with `python -m fmnist_exp`."""

from fmnist_exp.cli import run

run()
