"""Where the inputs of layers can be seen while the model runs, and their moments from a run over the data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression import runtime
from compression.graph import Layer, interface
from compression.method import Role, StepContext
from compression.quantization.narrow.moments import ASIDE, Moments, moments_bytes
from compression.quantization.probe import Feeds

GROUP_BYTES = 512 << 20
"""Of moments gathered in one pass over the data."""
MAX_WIDTH = 8192
"""Beyond it one layer's moments would take over a gigabyte."""
_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Tap:
    """The value that a product reads beside its weight, with K features on its last axis."""

    name: str
    width: int


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Of one pass: moments by the name of the value, and why there are none for others."""

    moments: Mapping[str, Moments] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    samples: int = 0
    share: float = 1.0
    """Of all passes, how many are done with this one."""


def tap_of(layer: Layer, model: ir.Model, width: int) -> Tap | str:
    """The tap of a product in the main graph; or why its inputs cannot be seen."""
    node = layer.node
    if node.op_type not in ("MatMul", "Gemm", "FusedMatMul"):
        return f"inputs of {node.op_type} are not gathered"
    if layer.graph is not model.graph:
        return "it stands in a body, whose inputs cannot be seen from outside"
    given = node.inputs[0]
    turned = any(
        (attribute := node.attributes.get(name)) is not None and attribute.as_int() for name in ("transA",)
    )
    if given is None or not given.name or turned:
        return "its weight is not its second input"
    if ir.convenience.get_const_tensor(given) is not None:
        return "its weight is not its second input"
    if width > MAX_WIDTH:
        return f"it has {width} inputs, more than the {MAX_WIDTH} whose moments fit into memory"
    return Tap(name=given.name, width=width)


def gather(model: ir.Model, taps: Sequence[Tap], context: StepContext, samples: int) -> Iterator[Gathered]:
    """Run the model over the calibration data, once for each group of taps whose moments fit into memory.

    Each group's moments are to be let go of before the next is asked for. The model is as it was in between.

    Raises:
        DataMismatch: the data does not fit the model.
    """
    groups = list(_groups(list({tap.name: tap for tap in taps}.values())))
    for number, group in enumerate(groups):
        store = {tap.name: Moments(width=tap.width) for tap in group}
        seen = 0
        for seen, total in _pass(model, store, context, samples):
            share = (number + 0.5 * seen / max(total, 1)) / len(groups)
            context.report(
                0.8 * min(share, 1.0), f"gathering the inputs of {len(group)} layers, sample {seen}"
            )
        refused = {name: _refusal(name, moments) for name, moments in store.items() if not moments.usable}
        yield Gathered(
            moments={name: moments for name, moments in store.items() if name not in refused},
            refused=refused,
            samples=seen,
            share=(number + 1) / len(groups),
        )


def _refusal(name: str, moments: Moments) -> str:
    if moments.spoilt:
        return f"the tensor {name!r} takes NaN or infinity on the calibration data"
    return f"the calibration data gives too few rows of {name!r}"


def _groups(taps: Sequence[Tap]) -> Iterator[list[Tap]]:
    group: list[Tap] = []
    held = 0
    for tap in taps:
        need = moments_bytes(tap.width)
        if group and held + need > GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(tap)
        held += need
    if group:
        yield group


def _pass(
    model: ir.Model, store: Mapping[str, Moments], context: StepContext, samples: int
) -> Iterator[tuple[int, int]]:
    """One run over the data; tells how many samples are done of how many."""
    data = context.data[Role.CALIBRATION]
    inputs = interface(model)[0]
    total = min(len(data), samples)
    size = _BATCH if total >= 4 * ASIDE * _BATCH else 1
    fed = {tensor.name for tensor in inputs}
    session = runtime.open_session(
        model,
        device=context.device,
        threads=context.threads,
        outputs=[name for name in store if name not in fed],
    )
    done = 0
    for count, feed in enumerate(data.feeds(inputs, size, limit=total)):
        values = {**feed, **runtime.run(session, feed)}
        for name, moments in store.items():
            _take(moments, values[name], count, few=total < 2 * ASIDE)
        done = min(done + _rows(feed, size), total)
        yield done, total


def _take(moments: Moments, value: NDArray[Any], count: int, *, few: bool) -> None:
    if value.size == 0 or value.shape[-1] != moments.width:
        return
    rows = value.reshape(-1, moments.width)
    if few:
        moments.split(rows)
    else:
        moments.add(rows, aside=count % ASIDE == ASIDE - 1)


def _rows(feed: Feeds, size: int) -> int:
    return size if size == 1 else next((array.shape[0] for array in feed.values() if np.ndim(array)), 1)
