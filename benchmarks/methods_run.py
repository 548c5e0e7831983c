"""Runs one row of methods.md through the pipeline, keeps what came out, and measures kept models again."""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from benchmarks.images import distorted, read_images, write_datasets
from benchmarks.measuring import EVALUATION, brief, measure
from benchmarks.networks import initial, trained
from compression.job import Job
from compression.measurements import Measurements
from compression.method import Role
from compression.pipeline import run
from compression.registry import METHODS
from compression.spec import CompressionSpec

Step = Mapping[str, Any]
EPOCHS = {"lenet-300-100": 15, "lenet5": 8, "resnet": 6, "mobilenet": 6, "mobilenet-wide": 6}
MNIST = ("lenet-300-100", "lenet5")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A pipeline on one network. It learns from so many `images`: of the training set, and where these are too few,
    from distorted copies of them too."""

    network: str
    name: str
    steps: tuple[Step, ...]
    images: int

    @property
    def key(self) -> str:
        return f"{self.network}: {self.name}"


class Finished(BaseModel):
    """What a row came to. `timed` says that its latencies come from a pass that did nothing else."""

    steps: tuple[Step, ...]
    images: int
    seconds: float
    measurements: Measurements
    timed: bool = False
    versions: tuple[int, ...] = ()
    """Of the steps' methods when it ran; none where all were the first."""

    @property
    def accuracy(self) -> float:
        return self.measurements.compressed.metrics["accuracy"].value

    @property
    def change(self) -> float:
        return self.measurements.metric_changes["accuracy"].change.value


def is_current(row: Row, found: Finished) -> bool:
    """Whether what was kept came from what the row says now, by its methods as they are now."""
    ran = found.versions or (1,) * len(found.steps)
    same = list(found.steps) == list(row.steps) and found.images == row.images
    return same and ran == versions(row.steps)


def versions(steps: Sequence[Step]) -> tuple[int, ...]:
    """Of the methods as they are now."""
    return tuple(METHODS[step["method"]].version for step in steps)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where everything lies: the image sets by name, and a folder for networks, data and results."""

    mnist: Path
    fashion: Path
    folder: Path

    def network(self, name: str) -> Path:
        path = self.folder / "networks" / f"{name}.onnx"
        return (
            path
            if path.exists()
            else trained(name, read_images(self._images(name)), path, epochs=EPOCHS[name])
        )

    def initial(self, name: str, seed: int) -> Path:
        """The network with random weights; those of seed 0 are what its training began with."""
        path = self.folder / "networks" / f"{name}-{seed}.onnx"
        return path if path.exists() else initial(name, path, seed=seed)

    def data(self, network: str, images: int) -> dict[Role, Path]:
        """Training images from the front of the set; with copies of all of them where more are asked for."""
        folder = self.folder / "data" / f"{self._set(network)}-{images}"
        if not (folder / "evaluation.npz").exists():
            found = read_images(self._images(network))
            copies = -(-images // len(found.train_x)) - 1
            write_datasets(distorted(found, copies) if copies else found, folder, training=images)
        return {role: folder / f"{role}.npz" for role in Role}

    def result(self, key: str) -> Path:
        """The model that a row made."""
        return self.folder / "results" / f"{_slug(key)}.onnx"

    def _images(self, network: str) -> Path:
        return self.mnist if network in MNIST else self.fashion

    def _set(self, network: str) -> str:
        return "mnist" if network in MNIST else "fashion"


def run_row(bench: Bench, row: Row, models: Mapping[str, Path]) -> Finished:
    """Runs the steps as a job on one thread, on which the same bytes come out each time.

    Raises:
        CompressionError: as `compression.pipeline.run`.
        ValidationError: a method or a field is unknown.
    """
    folder = bench.folder / "job"
    shutil.rmtree(folder, ignore_errors=True)
    spec = CompressionSpec(steps=list(row.steps), evaluation=EVALUATION)
    began = time.monotonic()
    job = Job(
        spec=spec,
        model=bench.network(row.network),
        data=bench.data(row.network, row.images),
        models=models,
        folder=folder,
        threads=1,
    )
    seconds: list[float] = []
    result = run(job, lambda event: seconds.append(getattr(event, "seconds", 0.0)), nullcontext)
    print(f"{row.key}: {time.monotonic() - began:.0f} s", flush=True)
    kept = bench.result(row.key)
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "steps" / str(len(row.steps) - 1) / "model.onnx", kept)
    shutil.rmtree(folder)
    return Finished(
        steps=row.steps,
        images=row.images,
        seconds=sum(seconds),
        measurements=brief(result.measurements),
        versions=versions(row.steps),
    )


def measure_again(bench: Bench, row: Row, found: Finished) -> Finished:
    """What was found with everything measured anew, the latencies among it, while nothing else runs."""
    measured = measure(
        bench.network(row.network),
        bench.result(row.key),
        bench.folder / "measuring",
        data=bench.data(row.network, found.images)[Role.EVALUATION],
    )
    return found.model_copy(update={"measurements": measured, "timed": True})


def _slug(key: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in key)
