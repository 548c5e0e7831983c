"""Every pruning, sparse-learning and distillation method on networks trained on real images; writes methods.md.

    python -m benchmarks.methods --mnist FOLDER [--fashion FOLDER] [--only 'resnet: *'] [--time]

The table can be made in pieces: rows that are finished stay in methods.json, and `--only` takes the rows whose name
fits a pattern. Run it once more with `--time` on a machine with nothing else to do: it measures the models that the
rows left in the folder again, and only latencies from there come into the table. benchmarks/images.py says where the
images come from.
"""

import argparse
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ValidationError

from benchmarks.measuring import Kept
from benchmarks.methods_page import page
from benchmarks.methods_rows import INITIAL, OTHER, ROWS
from benchmarks.methods_run import Bench, Finished, Row, is_current, measure_again, run_row
from compression.errors import CompressionError

PAGE = Path(__file__).with_suffix(".md")
KEPT = Kept(Path(__file__).with_suffix(".json"), Finished, [row.key for row in ROWS])


def main() -> None:
    options = _parser().parse_args()
    bench = Bench(mnist=options.mnist, fashion=options.fashion, folder=options.folder)
    chosen = [row for row in ROWS if any(fnmatchcase(row.key, pattern) for pattern in options.only)]
    if not chosen:
        raise SystemExit(f"no row fits {options.only}; they are: {', '.join(row.key for row in ROWS)}")
    for row in chosen:
        found = KEPT.read().get(row.key)
        if options.time and found is not None:
            KEPT.keep(row.key, measure_again(bench, row, found))
        elif not options.time and (options.again or found is None or not is_current(row, found)):
            _run(bench, row)
    PAGE.write_text(page(ROWS, KEPT.read()))


def _run(bench: Bench, row: Row) -> None:
    """A row that cannot run leaves the table as it is."""
    try:
        models = dict(_models(bench, row))
        KEPT.keep(row.key, run_row(bench, row, models))
    except (CompressionError, ValidationError) as error:
        print(f"{row.key}: not run: {error}", flush=True)


def _models(bench: Bench, row: Row) -> Iterator[tuple[str, Path]]:
    named = json.dumps(row.steps)
    for id, seed in ((INITIAL, 0), (OTHER, 1)):
        if id in named:
            yield id, bench.initial(row.network, seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", type=Path, required=True, help="folder with MNIST's four files")
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--folder", type=Path, default=Path("build/methods"), help="for networks and results")
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="rows to run, as 'resnet: *'"
    )
    parser.add_argument("--again", action="store_true", help="run also rows that are finished")
    parser.add_argument("--time", action="store_true", help="measure finished rows again, and run none")
    return parser


if __name__ == "__main__":
    main()
