"""The ways of factorizing that factorize.md sets side by side, each brought to the same multiply-accumulates."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.methods_run import Bench, Row
from compression.data import open_dataset
from compression.graph import load
from compression.method import Role, StepContext
from compression.methods.factorize import Factorize

IMAGES = 12_000
"""Of the training set, for `finetune`."""
FINETUNE = {"method": "finetune", "epochs": 3, "batch_size": 128, "learning_rate": 1e-3}
TARGETS = {"lenet-300-100": (0.1,), "lenet5": (0.3,), "resnet": (0.5,), "mobilenet": (0.7,)}
"""Shares of the multiply-accumulates by network."""
PLAIN: Mapping[str, Any] = {"method": "factorize", "whiten": "none"}
WHITE: Mapping[str, Any] = {"method": "factorize", "whiten": "activations"}
KNOBS: Mapping[str, tuple[float, ...]] = {
    "ratio": tuple(i / 200 for i in range(1, 200)),
    "energy": tuple(round(1 - 10 ** (-i / 50), 6) for i in range(1, 250)),
}


_STRIDE = 16


@dataclass(frozen=True, kw_only=True)
class Way:
    """One step of factorize without its goal; `knob` names the goal."""

    name: str
    step: Mapping[str, Any] = field(hash=False)
    knob: str
    kernels: bool = False
    """Differs from others only where a network has kernels larger than 1x1."""


NAIVE = "naive: SVD, one ratio for all layers"
BEST = "budget over all layers, fitted to data"
WAYS = (
    Way(name=NAIVE, step={**PLAIN, "form": "svd"}, knob="ratio"),
    Way(name="SVD, one ratio, fitted to data", step={**WHITE, "form": "svd"}, knob="ratio"),
    Way(name="Tucker or spatial, one ratio", step=PLAIN, knob="ratio", kernels=True),
    Way(name="Tucker or spatial, one ratio, fitted to data", step=WHITE, knob="ratio", kernels=True),
    Way(name="one share of energy", step=PLAIN, knob="energy"),
    Way(name="one share of energy, fitted to data", step=WHITE, knob="energy"),
    Way(name="budget over all layers", step=PLAIN, knob="max_macs"),
    Way(name=f"{BEST}, all outputs alike", step={**WHITE, "weigh_outputs": False}, knob="max_macs"),
    Way(name=BEST, step=WHITE, knob="max_macs"),
    Way(name=f"{BEST}, SVD only", step={**WHITE, "form": "svd"}, knob="max_macs", kernels=True),
    Way(name=f"{BEST}, Tucker only", step={**WHITE, "form": "tucker"}, knob="max_macs", kernels=True),
    Way(name=f"{BEST}, CP only", step={**WHITE, "form": "cp"}, knob="max_macs", kernels=True),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A way on a network at a share of its multiply-accumulates, with training behind it or none."""

    network: str
    target: float
    way: Way
    trained: bool

    @property
    def key(self) -> str:
        return f"{self.network} {self.target:.0%}: {self.way.name}{', finetune' * self.trained}"

    def row(self, bench: Bench) -> Row:
        """With the goal's number found."""
        step = goal(bench, self.network, self.target, self.way)
        steps = (step, FINETUNE) if self.trained else (step,)
        return Row(network=self.network, name=self.key.split(": ", 1)[1], steps=steps, images=IMAGES)


CASES = tuple(
    Case(network=network, target=target, way=way, trained=trained)
    for network, targets in TARGETS.items()
    for target in targets
    for way in WAYS
    if network in ("lenet5", "resnet") or not way.kernels
    for trained in (False, True)
)
BY_KEY = {case.key: case for case in CASES}


@cache
def goal(bench: Bench, network: str, target: float, way: Way) -> Mapping[str, Any]:
    """The naive way with the least ratio that keeps the target share; any other with no more than that computes."""
    if way.name == NAIVE:
        return _searched(bench, network, way, lambda macs, whole: macs < target * whole)[1]
    naive = next(item for item in WAYS if item.name == NAIVE)
    most, _ = _macs(bench, network, goal(bench, network, target, naive))
    if way.knob == "max_macs":
        return {**way.step, "max_macs": most}
    return _searched(bench, network, way, lambda macs, whole: macs <= most)[0]


Steps = tuple[Mapping[str, Any], Mapping[str, Any]]


def _searched(bench: Bench, network: str, way: Way, little: Callable[[int, int], bool]) -> Steps:
    """The last step whose network computes `little`, of multiply-accumulates left and of all, and the one behind it.

    So little may be asked for that no rank gives it, and layers stay whole: the search begins above that.
    """
    steps = [{**way.step, way.knob: value} for value in KNOBS[way.knob]]

    def enough(place: int) -> bool:
        return not little(*_macs(bench, network, steps[place]))

    low = max((place for place in range(0, len(steps), _STRIDE) if not enough(place)), default=0)
    high = min(low + _STRIDE, len(steps) - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return steps[low], steps[high]


def _macs(bench: Bench, network: str, step: Mapping[str, Any]) -> tuple[int, int]:
    """The multiply-accumulates that a step leaves, and those of the whole network."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with closing(open_dataset(bench.data(network, IMAGES)[Role.CALIBRATION], work / "data")) as data:
            context = StepContext(
                workdir=work,
                data={Role.CALIBRATION: data},
                device="cpu",
                threads=1,
                seed=0,
                report=lambda fraction, message: None,
            )
            model = load(bench.network(network), workdir=work)
            details = Factorize.model_validate(step).apply(model, context).details
    return details["macs_after"], details["macs_before"]
