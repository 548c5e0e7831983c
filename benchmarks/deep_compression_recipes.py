"""What the jobs of deep_compression.md do, and what was published."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Step = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    network: str
    aim: str
    steps: tuple[Step, ...]

    @property
    def key(self) -> str:
        return f"{self.network}: {self.aim}"


COPIES = {"lenet-300-100": 4, "lenet5": 2}
"""Distorted ones of each digit to train on."""
LEARN: Step = {"batch_size": 128, "validation": 0}
CONNECTED: Step = {
    "method": "prune_channels",
    "criterion": "paths",
    "threshold": 1e-6,
    "round_to": 1,
    "max_sparsity": 0.99,
}
"""Takes out units that no path goes through any more."""
PACKED: tuple[Step, ...] = ({"method": "strip_metadata"}, {"method": "pack"})


def _pruned(sparsity: float, *, criterion: str, rounds: int, final_epochs: int, **further: float) -> Step:
    return {
        "method": "prune_gradual",
        "criterion": criterion,
        "sparsity": sparsity,
        "rounds": rounds,
        "epochs": 1,
        "final_epochs": final_epochs,
        "learning_rate": 2e-3,
        **LEARN,
        **further,
    }


def _stored(*, epochs: int, rate: float = 0.002, **further: float) -> tuple[Step, ...]:
    shared = {
        "method": "share_weights",
        "entries": 16,
        "rate": rate,
        "biases": True,
        "indices": "bytes",
        "epochs": epochs,
        "learning_rate": 1e-3,
        **LEARN,
        **further,
    }
    return shared, *PACKED


NO_LOSS, SMALLEST = "no loss", "smaller still"
RECIPES: Sequence[Recipe] = (
    Recipe(
        network="lenet-300-100",
        aim=NO_LOSS,
        steps=(
            _pruned(0.95, criterion="magnitude", rounds=12, final_epochs=12),
            *_stored(epochs=4),
        ),
    ),
    Recipe(
        network="lenet-300-100",
        aim=SMALLEST,
        steps=(
            _pruned(0.977, criterion="lamp", rounds=6, final_epochs=14),
            *_stored(epochs=5, rate=0.01),
        ),
    ),
    Recipe(
        network="lenet5",
        aim=NO_LOSS,
        steps=(
            _pruned(0.94, criterion="lamp", rounds=4, final_epochs=8, label_smoothing=0.05),
            *_stored(epochs=2, label_smoothing=0.05),
        ),
    ),
    Recipe(
        network="lenet5",
        aim=SMALLEST,
        steps=(
            {"method": "prune_channels", "sparsity": 0.7, "round_to": 1},
            {
                "method": "entropy_penalized_training",
                "rate": 0.3,
                "epochs": 8,
                "learning_rate": 2e-3,
                "warmup": 0.05,
                "batch_size": 64,
            },
            CONNECTED,
            *PACKED,
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Published:
    ratio: float
    error: float
    baseline: float
    source: str


HAN = "Han et al. 2016"
EPR = "Oktay et al. 2020 (EPR)"
PUBLISHED = {
    "lenet-300-100": (
        Published(ratio=40, error=1.58, baseline=1.64, source=HAN),
        Published(ratio=124, error=1.9, baseline=1.6, source=EPR),
    ),
    "lenet5": (
        Published(ratio=39, error=0.74, baseline=0.80, source=HAN),
        Published(ratio=606, error=1.0, baseline=0.7, source=EPR),
    ),
}
"""Whole networks: times smaller, test error in %, and that of the network that it was made from."""


@dataclass(frozen=True, kw_only=True)
class PublishedLayer:
    """A row of Han et al.'s tables 4 and 5, after pruning, sharing and Huffman coding."""

    kept: float
    value_bits: float
    index_bits: float
    rate: float


LAYERS = {
    "lenet-300-100": (
        PublishedLayer(kept=8, value_bits=4.4, index_bits=3.7, rate=2.32),
        PublishedLayer(kept=9, value_bits=4.4, index_bits=4.3, rate=3.04),
        PublishedLayer(kept=26, value_bits=4.3, index_bits=3.2, rate=12.70),
    ),
    "lenet5": (
        PublishedLayer(kept=66, value_bits=7.2, index_bits=1.5, rate=67.45),
        PublishedLayer(kept=12, value_bits=7.2, index_bits=3.9, rate=5.28),
        PublishedLayer(kept=8, value_bits=4.5, index_bits=4.5, rate=2.45),
        PublishedLayer(kept=19, value_bits=5.2, index_bits=3.7, rate=6.13),
    ),
}
"""In %, bits a kept weight, bits a kept weight, %."""
