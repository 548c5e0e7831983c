"""Channel pruning side by side with Torch-Pruning, and which architectures both can cut; writes torch_pruning.md.

    pip install --no-deps --target PEERS torch-pruning==1.6.1 && pip install --target PEERS transformers==5.23.0
    python -m benchmarks.torch_pruning --peers PEERS [--only resnet 'trained *'] [--time]

The folder of the peers comes last on Python's path, so that torch and numpy stay those of the environment. The trained
networks and the data come from a run of benchmarks.methods, whose folder `--methods` names. Rows that are finished
stay in torch_pruning.json; once more with `--time`, on a machine with nothing else to do, measures their models again.
"""

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from benchmarks.measuring import Kept
from benchmarks.torch_pruning_page import page
from benchmarks.torch_pruning_rows import ROWS, Compared, Folders

PAGE = Path(__file__).with_suffix(".md")
KEPT = Kept(Path(__file__).with_suffix(".json"), Compared, list(ROWS))


def main() -> None:
    options = _parser().parse_args()
    sys.path.append(str(options.peers))
    torch.set_num_threads(1)
    folders = Folders(results=options.folder, methods=options.methods)
    for key, row in ROWS.items():
        found = KEPT.read().get(key)
        if not any(fnmatchcase(key, pattern) for pattern in options.only):
            continue
        if options.time and found is not None:
            KEPT.keep(key, row.measure_again(folders, found))
        elif not options.time and (options.again or found is None):
            KEPT.keep(key, row.run(folders))
            print(f"{key}: done", flush=True)
    PAGE.write_text(page(KEPT.read()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peers", type=Path, required=True, help="folder with torch-pruning and transformers"
    )
    parser.add_argument("--folder", type=Path, default=Path("build/torch_pruning"), help="for models")
    parser.add_argument(
        "--methods", type=Path, default=Path("build/methods"), help="the folder of benchmarks.methods"
    )
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="rows to run")
    parser.add_argument("--again", action="store_true", help="run also rows that are finished")
    parser.add_argument("--time", action="store_true", help="measure finished rows again, and run none")
    return parser


if __name__ == "__main__":
    main()
