"""Finished tensors in checkpoints, so that another attempt does not code them again."""

from pathlib import Path
from typing import Any

import numpy as np

from compression.checkpoints import Checkpoints
from compression.sparse_coding.fitting import Fitted
from compression.sparse_coding.layout import Layout
from compression.sparse_coding.pursuit import Codes


class Finished:
    """Codes and dictionaries by the name of the weight."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._arrays: dict[str, Any] = {}
        saved = checkpoints.load()
        if saved is not None:
            with np.load(saved) as found:
                self._arrays = dict(found)

    def found(self, name: str, layout: Layout) -> Fitted | None:
        if f"{name}:atoms" not in self._arrays:
            return None
        atoms, gains, dictionary = (
            self._arrays[f"{name}:{part}"] for part in ("atoms", "gains", "dictionary")
        )
        codes = Codes(atoms=atoms.astype(np.int64), gains=gains.astype(np.float64))
        return Fitted(codes=codes, dictionary=dictionary, layout=layout)

    def keep(self, name: str, fitted: Fitted) -> None:
        self._arrays |= {
            f"{name}:atoms": fitted.codes.atoms.astype(np.uint8),
            f"{name}:gains": fitted.codes.gains.astype(np.int8),
            f"{name}:dictionary": fitted.dictionary,
        }
        if self._checkpoints.due():
            self._checkpoints.save(self._write)

    def _write(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **self._arrays)
