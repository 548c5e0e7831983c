"""The rows of methods.md: which pipeline runs on which network, and what is expected of the outcome."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.methods_run import Finished, Row, Step

INITIAL = "mdl_" + "0" * 25 + "1"
"""Stands for the network's weights before it was trained."""
OTHER = "mdl_" + "0" * 25 + "2"
"""Stands for other random weights of the same network."""

LENETS = ("lenet-300-100", "lenet5")
DEEP = ("resnet", "mobilenet")
ALL = (*LENETS, *DEEP)
GRADUALLY = (*ALL, "mobilenet-wide")
FEW, EVERY, COPIED = 12_000, 60_000, 120_000
"""Images that a row learns from; of the last, half are distorted copies."""
LEARN = {"batch_size": 128, "learning_rate": 2e-3}
FINETUNE = {"method": "finetune", "epochs": 3, **LEARN}
LAYERWISE = {"sparsity": 0.9, "scope": "layer"}
GRADUAL = {"method": "prune_gradual", "sparsity": 0.9, **LEARN}
SLOWLY = {
    **GRADUAL,
    "rounds": 6,
    "epochs": 1,
    "final_epochs": 7,
    "learning_rate": 5e-3,
    "alpha": 0.9,
}
TICKET = {"method": "prune_gradual", "sparsity": 0.95, **LEARN}
STUDENT = {"method": "distill", "derive": {"width": 0.25, "weights": "reinitialised"}, "epochs": 6, **LEARN}
LONGER = {**STUDENT, "epochs": 25, "learning_rate": 3e-3}
HALF = {"method": "prune_channels", "sparsity": 0.5, "criterion": "l1"}
QUARTER = {"method": "prune_channels", "sparsity": 0.25, "criterion": "l1", "round_to": 4}
THIRD = {"method": "prune_channels", "sparsity": 0.34, "criterion": "l1", "round_to": 4}
RECOVER = {"method": "finetune", "epochs": 16, "batch_size": 64, "learning_rate": 2e-3}
IMITATING = {**RECOVER, "epochs": 12, "learning_rate": 5e-3, "alpha": 0.7, "validation": 0.05}
IMITATE = {"method": "distill", "alpha": 0.5, "batch_size": 64, "learning_rate": 2e-3}

TABLE: tuple[tuple[str, tuple[str, ...], int, tuple[Step, ...]], ...] = (
    ("magnitude 90%", ALL, FEW, ({"method": "prune_magnitude", **LAYERWISE},)),
    ("magnitude 90%, finetune", ALL, FEW, ({"method": "prune_magnitude", **LAYERWISE}, FINETUNE)),
    ("sensitivity 90%, finetune", ALL, FEW, ({"method": "prune_sensitivity", **LAYERWISE}, FINETUNE)),
    ("gradual 90%", LENETS, EVERY, ({**SLOWLY, "learning_rate": 2e-3},)),
    ("gradual 90%", ("resnet",), COPIED, ({**SLOWLY, "criterion": "lamp", "validation": 0.05},)),
    ("gradual 90%", ("mobilenet", "mobilenet-wide"), EVERY, (SLOWLY,)),
    (
        "sparse learning 90%",
        ALL,
        FEW,
        ({"method": "sparse_learn", "sparsity": 0.9, "epochs": 3, "debias_epochs": 2, **LEARN},),
    ),
    ("channels 50%", ALL, FEW, (HALF,)),
    ("channels 50%, finetune", LENETS, FEW, (HALF, FINETUNE)),
    ("channels 50%, finetune", ("resnet",), EVERY, (HALF, IMITATING)),
    ("channels 50%, finetune", ("mobilenet",), EVERY, (HALF, RECOVER)),
    (
        "channels 50% in two rounds, distilled",
        DEEP,
        EVERY,
        (QUARTER, {**IMITATE, "epochs": 2}, THIRD, {**IMITATE, "epochs": 8}),
    ),
    ("a quarter of the width from random, labels alone", LENETS, FEW, ({**STUDENT, "alpha": 0.0},)),
    ("a quarter of the width from random, distilled", LENETS, FEW, ({**STUDENT, "alpha": 0.9},)),
    ("a quarter of the width from random, labels alone", DEEP, FEW, ({**LONGER, "alpha": 0.0},)),
    ("a quarter of the width from random, distilled", DEEP, FEW, ({**LONGER, "alpha": 0.9},)),
    ("lottery ticket 95%", LENETS, FEW, ({**TICKET, "rewind": "weights", "initial": INITIAL},)),
    (
        "the same mask on other random weights, 95%",
        LENETS,
        FEW,
        ({**TICKET, "rewind": "weights", "initial": OTHER},),
    ),
)
ROWS = tuple(
    Row(network=network, name=name, steps=steps, images=images)
    for network in GRADUALLY
    for name, networks, images, steps in TABLE
    if network in networks
)


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """`found` gives the figure that counts from the rows of these keys, and whether it is enough."""

    words: str
    keys: tuple[str, ...]
    found: Callable[..., tuple[str, bool]]
    timed: bool = False


def loses_under(points: float) -> Callable[[Finished], tuple[str, bool]]:
    def found(row: Finished) -> tuple[str, bool]:
        change = 100 * row.change
        return f"{change:+.2f} points", change > -points

    return found


def faster_by(factor: float) -> Callable[[Finished], tuple[str, bool]]:
    def found(row: Finished) -> tuple[str, bool]:
        speedup = row.measurements.speedup
        return ("no speed", False) if speedup is None else (f"{speedup.value:.2f}x", speedup.value >= factor)

    return found


def beats(ours: Finished, theirs: Finished) -> tuple[str, bool]:
    return f"{ours.accuracy:.2%} against {theirs.accuracy:.2%}", ours.accuracy > theirs.accuracy


EXPECTATIONS = (
    Expectation(
        words="half the channels of the ResNet and finetuning lose under 1 point",
        keys=("resnet: channels 50%, finetune",),
        found=loses_under(1.0),
    ),
    Expectation(
        words="... and it runs at least 1.6x faster in onnxruntime",
        keys=("resnet: channels 50%, finetune",),
        found=faster_by(1.6),
        timed=True,
    ),
    *(
        Expectation(
            words=f"gradual pruning of {network} to 90% loses under 0.5 point",
            keys=(f"{network}: gradual 90%",),
            found=loses_under(0.5),
        )
        for network in GRADUALLY
    ),
    *(
        Expectation(
            words=f"distillation beats the same student of {network} trained on labels alone",
            keys=(
                f"{network}: a quarter of the width from random, distilled",
                f"{network}: a quarter of the width from random, labels alone",
            ),
            found=beats,
        )
        for network in ALL
    ),
    *(
        Expectation(
            words=f"the lottery ticket of {network} beats a random re-initialisation at 95%",
            keys=(f"{network}: lottery ticket 95%", f"{network}: the same mask on other random weights, 95%"),
            found=beats,
        )
        for network in LENETS
    ),
)
