"""`factorize` beside naive SVD at equal multiply-accumulates, on networks trained on real images; writes factorize.md.

    python -m benchmarks.factorize --mnist FOLDER [--fashion FOLDER] [--only 'resnet *'] [--time]

The table can be made in pieces: what is finished stays in factorize.json, and `--only` takes what fits a pattern. Run
it once more with `--time` on a machine with nothing else to do: only latencies from there come into the table.
"""

import argparse
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.factorize_page import page
from benchmarks.factorize_ways import BY_KEY, CASES, Case
from benchmarks.measuring import Kept
from benchmarks.methods_run import Bench, Finished, Row, measure_again, run_row

PAGE = Path(__file__).with_suffix(".md")
KEPT = Kept(Path(__file__).with_suffix(".json"), Finished, tuple(BY_KEY))


def main() -> None:
    options = _parser().parse_args()
    bench = Bench(mnist=options.mnist, fashion=options.fashion, folder=options.folder)
    chosen = [case for case in CASES if any(fnmatchcase(case.key, pattern) for pattern in options.only)]
    if not chosen:
        raise SystemExit(f"nothing fits {options.only}; there are: {', '.join(BY_KEY)}")
    for case in chosen:
        _work(bench, case, again=options.again, time=options.time)
        PAGE.write_text(page(CASES, KEPT.read()))


def _work(bench: Bench, case: Case, *, again: bool, time: bool) -> None:
    found = KEPT.read().get(case.key)
    if time and found is not None:
        KEPT.keep(case.key, measure_again(bench, _named(case, found), found))
    elif not time and (again or found is None):
        row = case.row(bench)
        KEPT.keep(case.key, run_row(bench, row, {}))


def _named(case: Case, found: Finished) -> Row:
    """The row as it ran, without looking for its goal again."""
    return Row(network=case.network, name=case.key.split(": ", 1)[1], steps=found.steps, images=found.images)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", type=Path, required=True, help="folder with MNIST's four files")
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--folder", type=Path, default=Path("build/methods"), help="for networks and results")
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="what to run, as 'resnet *'"
    )
    parser.add_argument("--again", action="store_true", help="run also what is finished")
    parser.add_argument("--time", action="store_true", help="measure what is finished again, and run nothing")
    return parser


if __name__ == "__main__":
    main()
