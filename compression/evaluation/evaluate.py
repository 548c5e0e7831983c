"""Original and compressed model, measured side by side in one run."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from compression.measurements import Measurements
from compression.method import Device

if TYPE_CHECKING:
    from compression.data import Dataset
    from compression.spec import Evaluation


def evaluate(
    original: Path,
    compressed: Path,
    *,
    evaluation: "Evaluation",
    data: "Dataset | None",
    calibration: "Dataset | None",
    device: Device,
    seed: int,
    workdir: Path,
    timing: Callable[[], AbstractContextManager[None]],
    report: Callable[[float, str], None],
) -> Measurements:
    """Measure two ONNX files (external data beside them) on the same inputs.

    Task metrics come from `data` where it is labelled; fidelity from `data`, else `calibration`, else synthetic inputs.
    `timing` is held only while inferences are timed, so that no two jobs of a machine time at once.
    """
    raise NotImplementedError
