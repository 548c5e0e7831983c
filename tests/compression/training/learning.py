"""The digits as a dataset, small models on them, contexts, and checkpoints that break off."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from compression.checkpoints import Write
from compression.data import Dataset, open_dataset
from compression.graph import load
from compression.method import Role, StepContext
from tests.compression.distillation.networks import Writer, digits


class BrokenOff(Exception):
    """The worker dies."""


class Breaking:
    """Saves at every `every`-th look, and dies at look number `dies_at`, right after saving what was due."""

    def __init__(self, folder: Path, *, dies_at: int | None = None, every: int = 1) -> None:
        self._path, self._dies_at, self._every = folder / "checkpoint", dies_at, every
        self.looks = 0

    def load(self) -> Path | None:
        return self._path if self._path.exists() else None

    def due(self) -> bool:
        self.looks += 1
        if self._dies_at is not None and self.looks > self._dies_at:
            raise BrokenOff
        return self.looks % self._every == 0

    def save(self, write: Write) -> None:
        partial = self._path.with_suffix(".partial")
        write(partial)
        partial.replace(self._path)


def dataset(folder: Path, **arrays: np.ndarray) -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data.npz", **arrays)
    return open_dataset(folder / "data.npz", folder / "opened")


def digits_data(folder: Path, samples: int = 400, *, labels: bool = True, images: bool = False) -> Dataset:
    pixels, numbers = digits()
    shape = (-1, 1, 8, 8) if images else (-1, 64)
    arrays = {"image": pixels[:samples].reshape(shape)} | ({"labels": numbers[:samples]} if labels else {})
    return dataset(folder, **arrays)


def context(folder: Path, data: Dataset, **changes: Any) -> StepContext:
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {"report": lambda *_: None, "seed": 3, **changes}
    return StepContext(workdir=work, data={Role.TRAINING: data}, device="cpu", threads=1, **given)


def mlp(folder: Path, *, hidden: int = 24, norm: bool = False, batch: int | str = "batch") -> ir.Model:
    """Gemm(64, hidden) - [BatchNormalization] - Relu - Gemm(hidden, 10): `first`, `norm`, `last`."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer(0)
    x = writer.dense("image", "first", 64, hidden)
    if norm:
        names = [writer.weight(f"norm.{name}", hidden) for name in ("scale", "bias", "mean", "var")]
        x = writer.node("BatchNormalization", [x, *names], "norm")
        for tensor in writer.stored:
            if tensor.name in ("norm.scale", "norm.var"):
                tensor.raw_data = np.ones(hidden, np.float32).tobytes()
    x = writer.dense(writer.relu(x, "relu"), "last", hidden, 10)
    writer.save(folder / "mlp.onnx", x, (64,))
    model = load(folder / "mlp.onnx")
    if batch != "batch":
        for value in (*model.graph.inputs, *model.graph.outputs):
            assert value.shape is not None
            value.shape = ir.Shape([batch, *list(value.shape)[1:]])
    return model


def arrays(model: ir.Model) -> dict[str, np.ndarray]:
    """Every stored tensor."""
    return {
        name: np.array(value.const_value.numpy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """To the bit."""
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def accuracy(model: ir.Model, pixels: np.ndarray, labels: np.ndarray) -> float:
    from compression.runtime import open_session, run

    (scores,) = run(open_session(model, device="cpu", threads=1), {"image": pixels}).values()
    return float((scores.argmax(axis=-1) == labels).mean())


def resumed(
    folder: Path, work: Callable[[Path, Breaking], ir.Model], dies_at: Sequence[int], every: int = 1
) -> dict[str, np.ndarray]:
    """What comes out where the worker dies at each of these looks, one attempt after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    for attempt, look in enumerate(dies_at):
        try:
            work(folder / str(attempt), Breaking(folder, dies_at=look, every=every))
        except BrokenOff:
            continue
        raise AssertionError(f"the attempt {attempt} ended before look {look}")
    return arrays(work(folder / "last", Breaking(folder, every=every)))
