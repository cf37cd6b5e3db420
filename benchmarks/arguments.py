"""The command line of a benchmark whose options are plain numbers and texts."""

import argparse


def parser(description: str, **options: tuple[object, str]) -> argparse.ArgumentParser:
    """Return the parser of a command line: each option has a default, whose type its values have, and a help text."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, text) in options.items():
        made.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default: {default})")
    return made
