"""What the pages of compression methods share: two models measured as a job measures them, and rows kept in JSON."""

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from compression.data import open_dataset
from compression.evaluation.evaluate import evaluate
from compression.measurements import Measurements
from compression.spec import Evaluation

EVALUATION = Evaluation(metrics=("accuracy",))
Row = TypeVar("Row", bound=BaseModel)


class Kept(Generic[Row]):
    """Rows by key in a JSON file, one a line, so that a table can be made in pieces."""

    def __init__(self, path: Path, kind: type[Row], order: Sequence[str]) -> None:
        self._path, self._kind, self._order = path, kind, order

    def read(self) -> dict[str, Row]:
        text = self._path.read_text() if self._path.exists() else "{}"
        return {key: self._kind.model_validate(value) for key, value in json.loads(text).items()}

    def keep(self, key: str, row: Row) -> None:
        rows = {**self.read(), key: row}
        lines = [f"{json.dumps(key)}: {rows[key].model_dump_json()}" for key in self._order if key in rows]
        self._path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def measure(original: Path, compressed: Path, workdir: Path, *, data: Path | None = None) -> Measurements:
    """Both models side by side, with accuracy where there is labelled data; on made-up inputs where there is none.

    Raises:
        ResultRejected: the compressed model cannot be opened or run.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, workdir, ignore_errors=True)
        dataset = None if data is None else open_dataset(data, workdir / "data")
        if dataset is not None:
            cleanup.callback(dataset.close)
        measured = evaluate(
            original,
            compressed,
            evaluation=EVALUATION,
            data=dataset,
            calibration=None,
            device="cpu",
            seed=0,
            workdir=workdir,
            timing=nullcontext,
            report=lambda fraction, message: None,
        )
    return brief(measured)


def brief(measurements: Measurements) -> Measurements:
    """Without the layers and the outputs' fidelity, which the pages do not show."""
    original, compressed = (
        model.model_copy(update={"layers": ()}) for model in (measurements.original, measurements.compressed)
    )
    return measurements.model_copy(update={"original": original, "compressed": compressed, "fidelity": {}})
