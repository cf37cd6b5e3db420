"""Train the published systems and the platform's own networks, and write docs/results.md.

Each experiment is trained with several seeds on one split of the images, and with several seeds that have a split
each. The recipes of the published systems are also fitted in plain Keras (benchmarks/peers). Each result is a line of
docs/results.jsonl. No fit is repeated while its result belongs to this code, these libraries and these settings, so the
command can be stopped, and continued on another machine; results of other versions are not shown.
Usage: python -m benchmarks.systems [NAME …] [--seeds 0 1 2] [--table-only]
"""

import argparse

from benchmarks.results import fits, page
from benchmarks.results.fits import ENSEMBLE, OURS, PUBLISHED, SEEDS, Results
from benchmarks.runs import Runs, here


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [*PUBLISHED, *OURS, ENSEMBLE]
    parser.add_argument("names", nargs="*", default=everything, metavar="NAME", help=", ".join(everything))
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS), help="default: all")
    parser.add_argument("--table-only", action="store_true", help="train nothing, only write the page")
    return parser


def main() -> None:
    """Train what is missing, one seed of all experiments after the other, and write the page after each fit."""
    given = parser().parse_args()
    if unknown := set(given.names) - {*PUBLISHED, *OURS, ENSEMBLE}:
        parser().error(f"there is no system {min(unknown)!r}; --help lists them")
    results = Results(Runs("systems", here()), fits.FILE)
    page.write(results)
    for fit in () if given.table_only else fits.missing(results, given.names, given.seeds):
        fit()
        page.write(results)


if __name__ == "__main__":
    main()
