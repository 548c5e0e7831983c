"""The models of a distillation: another uploaded one under the job's names, and a student derived from a teacher."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from compression.distillation.depth import Dropped, drop_blocks
from compression.distillation.fitting import adopt_interface
from compression.distillation.reinitialise import reinitialise
from compression.distillation.settings import Derive
from compression.distillation.width import narrow
from compression.graph import interface, layers, load
from compression.method import StepContext

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """What became of the teacher's layers, by name, and sentences about it."""

    dropped: Mapping[str, str] = field(default_factory=dict)
    """Layers that are gone, and why."""
    narrowed: frozenset[str] = frozenset()
    fresh: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def words(self, layer: str) -> str:
        """What was done to a layer that is still there, before it was trained."""
        found = [("narrowed", self.narrowed), ("reinitialised", self.fresh)]
        return " and ".join(word for word, names in found if layer in names)


def other_model(id: str, ours: "ir.Model", role: str, context: StepContext) -> "ir.Model":
    """Another uploaded model, its inputs and outputs named as the job's; a student gets their axes too.

    Raises:
        NotApplicable: its inputs or outputs do not fit.
    """
    folder = context.workdir / role
    folder.mkdir(exist_ok=True)
    model = load(context.models[id], workdir=folder)
    adopt_interface(model, interface(ours), role=role)
    return model


def derive(
    model: "ir.Model",
    settings: Derive,
    feeds: Mapping[str, np.ndarray],
    context: StepContext,
    *,
    untouched: Collection[str] = (),
) -> Derivation:
    """Makes a teacher's copy shallower, then narrower, then fresh, in place, as far as each is asked for.

    Args:
        model: a copy of the teacher.
        settings: how much.
        feeds: a batch on which blocks are tried.
        context: device, threads, seed and progress.
        untouched: names of layers that must not change.

    Raises:
        NotApplicable: nothing can leave, with the reason.
    """
    dropped = (
        drop_blocks(model, settings.depth, feeds, context, untouched=untouched) if settings.depth < 1 else ()
    )
    before = _shapes(model)
    counts = narrow(model, settings.width, untouched=untouched) if settings.width < 1 else {}
    after = _shapes(model)
    fresh = (
        reinitialise(model, context.seed, untouched=untouched) if settings.weights == "reinitialised" else ()
    )
    return Derivation(
        dropped={name: f"dropped with the block {block.name}" for block in dropped for name in block.nodes},
        narrowed=frozenset(name for name in before if before[name] != after.get(name)),
        fresh=frozenset(fresh),
        notes=tuple(_notes(settings, dropped, counts, fresh)),
    )


def _shapes(model: "ir.Model") -> dict[str, list[tuple[int, ...]]]:
    """By layer."""
    return {
        layer.name: [tuple(value.const_value.shape.numpy()) for value in layer.weights if value.const_value]
        for layer in layers(model)
    }


def _notes(
    settings: Derive, dropped: Collection[Dropped], counts: Mapping[str, int], fresh: Collection[str]
) -> Iterator[str]:
    if dropped:
        told = ", ".join(f"{block.name} ({block.error:.2g})" for block in dropped)
        yield f"residual blocks dropped, with the relative error that each alone makes: {told}"
    if counts:
        yield f"{_count(sum(counts.values()), 'channel')} of {_count(len(counts), 'group')} left the student"
    elif settings.width < 1:
        yield "no channels left the student: all groups touch layers that are not selected"
    if fresh:
        yield f"random weights to begin with: {_count(len(fresh), 'layer')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
