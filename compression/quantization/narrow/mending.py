"""Gives 8 bits to the layers that spoil the model's outputs, no more of them than a bound asks for."""

import time
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from compression.quantization.check import OutputCheck
from compression.quantization.narrow.finding import find_codes
from compression.quantization.narrow.narrowed import Narrowed
from compression.quantization.narrow.placing import place
from compression.quantization.narrow.planning import Item
from compression.quantization.narrow.settings import Narrowing
from compression.quantization.narrow.spill import Spill
from compression.quantization.probe import Fidelity, fidelity

SECONDS = 15.0
"""For trying layers one by one; those not reached are ranked by the noise of their weights, after the others."""
WIDE = 8


def mend(
    model: ir.Model,
    items: Sequence[Item],
    asked: Narrowing,
    check: OutputCheck,
    *,
    spill: Spill,
    bound: float,
) -> str | None:
    """Round as few weights again with 8 bits as bring the outputs to `bound` dB; says what was done.

    The weights to blame are those that alone, all others being floats, leave most noise in the outputs. Where 8 bits
    everywhere are not enough, all stay as they are.
    """
    able = [item for item in items if item.narrowed is not None and item.value.producer() is None]
    if check.probe is None or asked.scheme.bits == WIDE or not able:
        return None
    before = _measure(model, able, check)
    if not before.comparable or before.sqnr_db >= bound:
        return None
    ranked = _ranked(model, able, check)
    narrow = {id(item): item.narrowed for item in ranked}
    wide: dict[int, Narrowed | None] = {id(item): _widened(item, asked, spill) for item in ranked}

    def reached(count: int) -> float:
        for position, item in enumerate(ranked):
            item.narrowed = (wide if position < count else narrow)[id(item)]
        return _measure(model, able, check).sqnr_db

    start = f"output {before.output!r} reached {before.sqnr_db:.1f} dB, below {bound:g} dB"
    fails, enough = 0, len(ranked)
    best = reached(enough)
    if best < bound:
        reached(0)
        return f"{start}; {WIDE} bits in every layer are not enough ({best:.1f} dB), so that all stay as asked for"
    while enough - fails > max(1, enough // 8):
        count = (fails + enough) // 2
        found = reached(count)
        if found >= bound:
            enough, best = count, found
        else:
            fails = count
    reached(enough)
    names = list(dict.fromkeys(item.layer.name for item in ranked[:enough]))
    named = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{start}; {WIDE} bits in {named} bring it to {best:.1f} dB"


def _measure(model: ir.Model, items: Sequence[Item], check: OutputCheck) -> Fidelity:
    if check.probe is None:
        raise ValueError("there is nothing to compare with")
    trial = model.clone()
    place(trial, items, folded_only=True)
    return fidelity(check.probe, trial, check.context)


def _ranked(model: ir.Model, items: Sequence[Item], check: OutputCheck) -> list[Item]:
    """The worst first: by the outputs' noise, and without time for that by the weights' own."""
    measured: list[tuple[float, int, Item]] = []
    rest = sorted(items, key=lambda item: item.narrowed.errors.sqnr_db if item.narrowed else 0.0)
    began = time.monotonic()
    while rest and time.monotonic() - began < SECONDS:
        item = rest.pop(0)
        measured.append((_measure(model, [item], check).sqnr_db, len(measured), item))
    return [item for _, _, item in sorted(measured)] + rest


def _widened(item: Item, asked: Narrowing, spill: Spill) -> Narrowed:
    more = replace(asked, scheme=replace(asked.scheme, bits=WIDE), algorithm="rtn")
    return find_codes(item.tensor, item.layout, more, None, None, spill=spill, stored_bits=WIDE)
