"""The rows of torch_pruning.md: each cuts a network by half with us and with Torch-Pruning, and measures both."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import onnx
from pydantic import BaseModel

from benchmarks.measuring import measure
from benchmarks.torch_pruning_networks import BUILDERS, LIGHT, example, export, module
from benchmarks.torch_pruning_ours import halve
from benchmarks.torch_pruning_trained import SEEDS, cut_and_finetune, evaluation, network
from compression.errors import CompressionError
from compression.measurements import Measurements
from tests.compression.zoo import light

NO_MODULE = "takes torch modules, not ONNX files"
PEER_S = 300
"""Torch-Pruning takes seconds for what it can cut."""
FAILURES = (
    CompressionError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
)
"""What cutting and exporting may end in: it is shown in the table."""
Criterion = Literal["l1", "taylor"]


class Side(BaseModel):
    """One of both. `reason` says why there is no result; `error` is that of our proof; accuracies are by seed."""

    reason: str = ""
    error: float | None = None
    measurements: Measurements | None = None
    accuracies: tuple[float, ...] = ()


class Compared(BaseModel):
    ours: Side
    theirs: Side
    timed: bool = False


@dataclass(frozen=True, kw_only=True)
class Folders:
    results: Path
    methods: Path

    def model(self, key: str, what: str) -> Path:
        return self.results / f"{key.replace(' ', '-').replace(',', '')}-{what}.onnx"


class Row(Protocol):
    def run(self, folders: Folders) -> Compared: ...

    def measure_again(self, folders: Folders, found: Compared) -> Compared: ...


@dataclass(frozen=True, kw_only=True)
class Reach:
    """An architecture with random weights. `file` is one of the onnx wheel's, else transformers builds it."""

    name: str
    file: bool = False

    def run(self, folders: Folders) -> Compared:
        original, ours, theirs = (folders.model(self.name, what) for what in ("original", "ours", "theirs"))
        original.parent.mkdir(parents=True, exist_ok=True)
        if self.file:
            onnx.save(light.filled(self.name), original)
        else:
            export(module(self.name), example(self.name), original)
        return Compared(
            ours=self._side(folders, original, ours, lambda: halve(original, ours)),
            theirs=Side(reason=NO_MODULE)
            if self.file
            else self._side(folders, original, theirs, lambda: self._peer(theirs)),
        )

    def _peer(self, target: Path) -> None:
        from benchmarks.torch_pruning_peer import halve as peer

        cut = module(self.name)
        with _within(PEER_S):
            peer(cut, example(self.name), criterion="l1")
        export(cut, example(self.name), target)

    def _side(self, folders: Folders, original: Path, target: Path, act: Callable[[], float | None]) -> Side:
        try:
            error = act()
            measured = measure(original, target, folders.results / "measuring")
        except FAILURES as reason:
            return Side(reason=_words(reason))
        return Side(error=error, measurements=measured)

    def measure_again(self, folders: Folders, found: Compared) -> Compared:
        original = folders.model(self.name, "original")
        return _timed(folders, self.name, found, original, None)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network of benchmarks.networks, cut by both and finetuned alike."""

    name: str
    criterion: Criterion

    @property
    def key(self) -> str:
        return f"trained {self.name}, {self.criterion}"

    def run(self, folders: Folders) -> Compared:
        return Compared(ours=self._side(folders, "ours"), theirs=self._side(folders, "theirs"))

    def _side(self, folders: Folders, what: str) -> Side:
        """Finetuned once with each seed; the result of the first is what is timed."""
        targets = [
            folders.model(self.key, what),
            *(folders.model(self.key, f"{what}-{n}") for n in SEEDS[1:]),
        ]
        try:
            for seed, target in zip(SEEDS, targets, strict=True):
                cut_and_finetune(self.name, self.criterion, what, folders.methods, target, seed=seed)
        except CompressionError as reason:
            return Side(reason=_words(reason))
        original, data = network(self.name, folders.methods), evaluation(folders.methods)
        found = [measure(original, target, folders.results / "measuring", data=data) for target in targets]
        accuracies = tuple(one.compressed.metrics["accuracy"].value for one in found)
        return Side(measurements=found[0], accuracies=accuracies)

    def measure_again(self, folders: Folders, found: Compared) -> Compared:
        original = network(self.name, folders.methods)
        return _timed(folders, self.key, found, original, evaluation(folders.methods))


def _timed(folders: Folders, key: str, found: Compared, original: Path, data: Path | None) -> Compared:
    sides = {"ours": found.ours, "theirs": found.theirs}
    for what, side in sides.items():
        if side.measurements is not None:
            measured = measure(original, folders.model(key, what), folders.results / "measuring", data=data)
            sides[what] = side.model_copy(update={"measurements": measured})
    return Compared(**sides, timed=True)


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """Ends what does not end by itself.

    Raises:
        RuntimeError: the time is up.
    """

    def stop(_signal: int, _frame: object) -> None:
        raise RuntimeError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _words(reason: Exception) -> str:
    """The first line of an error, in short."""
    lines = [line for line in str(reason).splitlines() if line.strip()]
    return f"{type(reason).__name__}: {lines[0] if lines else ''}"[:160]


ROWS: Mapping[str, Row] = {
    **{name: Reach(name=name, file=True) for name in LIGHT},
    **{name: Reach(name=name) for name in BUILDERS},
    **{
        row.key: row
        for row in (Trained(name=n, criterion=c) for n in ("resnet", "mobilenet") for c in ("l1", "taylor"))
    },
}
