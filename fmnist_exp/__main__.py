"""Run the command line, with `python -m fmnist_exp` or as `fmnist-exp`."""

import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line, and let a signal end the process quietly before the command line can handle it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from fmnist_exp.cli import run  # late: it takes half a second

    run()


def _leave(*_signal: object) -> NoReturn:
    os.write(2, b"fmnist-exp: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
