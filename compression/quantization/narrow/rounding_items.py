"""Rounds planned weights, one at a time: those fitted to their inputs while these are gathered, then the others."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import onnx_ir as ir

from compression.method import Role, StepContext
from compression.quantization.narrow.finding import common_scales, find_codes
from compression.quantization.narrow.moments import Moments
from compression.quantization.narrow.planning import Item
from compression.quantization.narrow.settings import Narrowing
from compression.quantization.narrow.spill import Spill
from compression.quantization.narrow.taps import Gathered, Tap, gather
from compression.quantization.rounding.blocks import Floats


def round_items(
    model: ir.Model, items: Sequence[Item], asked: Narrowing, context: StepContext, spill: Spill
) -> dict[str, float]:
    """Fill in `narrowed` of every item that is not kept; returns facts for the report.

    Raises:
        DataMismatch: the calibration data does not fit the model.
    """
    opset = model.opset_imports.get("", 0)
    waiting = [item for item in items if item.kept is None]
    facts: dict[str, float] = {}
    wants = asked.algorithm != "rtn" and Role.CALIBRATION in context.data
    taps = [item.tap for item in waiting if isinstance(item.tap, Tap)] if wants else []
    gathered = gather(model, taps, context, asked.samples) if taps else ()
    for passes, found in enumerate(gathered, start=1):
        facts = {"calibration_samples": found.samples, "passes": passes}
        _round_found(waiting, found, asked, context, spill=spill, opset=opset)
    rest = [item for item in waiting if item.narrowed is None]
    for count, item in enumerate(rest):
        context.report(0.8 * (count / max(len(rest), 1)) if not taps else 0.8, f"rounding {item.value.name}")
        _round(item, asked, None, None, spill=spill, opset=opset)
    for item in waiting:
        _bounded(item, asked)
    return facts


def _round_found(
    waiting: Sequence[Item],
    found: Gathered,
    asked: Narrowing,
    context: StepContext,
    *,
    spill: Spill,
    opset: int,
) -> None:
    for count, (name, group) in enumerate(_by_tap(waiting)):
        if name in found.refused:
            for item in group:
                item.tap = found.refused[name]
        moments = found.moments.get(name)
        if moments is None:
            continue
        scales = None
        if asked.algorithm == "awq":
            scales = common_scales([(item.tensor, item.layout) for item in group], asked.scheme, moments)
        for item in group:
            context.report(0.8 * found.share, f"rounding {item.value.name} ({count + 1} inputs done)")
            _round(item, asked, moments, scales, spill=spill, opset=opset)


def _by_tap(items: Sequence[Item]) -> Iterator[tuple[str, list[Item]]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        if isinstance(item.tap, Tap):
            groups.setdefault(item.tap.name, []).append(item)
    yield from groups.items()


def _round(
    item: Item, asked: Narrowing, moments: Moments | None, scales: Floats | None, *, spill: Spill, opset: int
) -> None:
    bits = asked.stored_bits(opset)
    made = find_codes(item.tensor, item.layout, asked, moments, scales, spill=spill, stored_bits=bits)
    if scales is not None and made.errors.output_noise > made.errors.nearest_noise:
        made = find_codes(item.tensor, item.layout, asked, moments, None, spill=spill, stored_bits=bits)
        made = replace(made, algorithm=f"{made.algorithm} (scaled inputs were no better)")
    item.narrowed = made


def _bounded(item: Item, asked: Narrowing) -> None:
    if item.narrowed is None or asked.min_sqnr_db is None:
        return
    reached = item.narrowed.errors.sqnr_db
    if reached < asked.min_sqnr_db:
        words = asked.scheme.words()
        item.kept = f"{words} would reach {reached:.1f} dB only, below min_sqnr_db = {asked.min_sqnr_db:g}"
        item.narrowed = None
