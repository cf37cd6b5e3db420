"""Load all that a trial needs into a local worker, as soon as this module is imported.

Where Python forks workers from a server, that server imports it, so that the workers find everything in memory.
"""

import importlib
import signal

from fmnist_exp.backend import loading

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
loading.load_keras()
importlib.import_module("fmnist_exp.tuning.workers.trial")
