"""Kernels that compute on codes, or floats folded at load: decided by timing both against the original."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from compression import runtime
from compression.errors import CompressionError
from compression.quantization.check import OutputCheck, weight_bytes
from compression.quantization.latency import Speed, paired_speeds
from compression.quantization.narrow.placing import place
from compression.quantization.narrow.planning import Item
from compression.quantization.narrow.settings import Narrowing

SECONDS = 3.0
ALLOWANCE = 0.97
"""Speed against the original below which a candidate counts as slower."""
MAX_TIMED_BYTES = 600_000_000
"""A larger model is not held in several sessions at once; kernels are taken, which keep it small in memory."""
LEVELS = (4, 0)
"""MatMulNBits' accuracy levels that are tried: inputs rounded to int8 by block, and inputs as they are."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The model with its weights in place."""

    model: ir.Model
    folded_only: bool = False
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


def decide(model: ir.Model, items: Sequence[Item], asked: Narrowing, check: OutputCheck) -> Decision:
    """Place the weights in the form that is not slower than the original.

    With `storage` other than auto, where no weight has a kernel, or where nothing can be run, nothing is timed.
    """
    in_functions = [item for item in items if item.value.producer() is not None]
    others = [item for item in items if item.value.producer() is None]
    place(model, in_functions)
    kernels = any(item.form == "matmul_nbits" for item in others if item.narrowed is not None)
    if asked.storage != "auto" or not kernels or check.probe is None:
        place(model, others)
        return Decision(model=model)
    if weight_bytes(model) > MAX_TIMED_BYTES:
        place(model, others)
        note = "the model is too large to time: products compute on the codes, which takes least memory"
        return Decision(model=model, notes=(note,))
    return _timed(model, others, check)


def _timed(model: ir.Model, items: Sequence[Item], check: OutputCheck) -> Decision:
    candidates = [model.clone() for _ in LEVELS]
    for candidate, level in zip(candidates, LEVELS, strict=True):
        place(candidate, items, accuracy=level)
    speeds = _speeds(model, candidates, check)
    if isinstance(speeds, str):
        place(model, items, folded_only=True)
        return Decision(model=model, folded_only=True, notes=(speeds,))
    details: dict[str, Any] = {
        "measured_ms": {
            f"MatMulNBits, accuracy level {level}": round(speed.latency_ms, 4)
            for level, speed in zip(LEVELS, speeds, strict=True)
        },
        "speedups": {
            f"MatMulNBits, accuracy level {level}": round(speed.speedup, 3)
            for level, speed in zip(LEVELS, speeds, strict=True)
        },
    }
    best = max(range(len(LEVELS)), key=lambda place: speeds[place].speedup)
    if speeds[best].speedup >= ALLOWANCE:
        details["accuracy_level"] = LEVELS[best]
        return Decision(model=candidates[best], details=details)
    place(model, items, folded_only=True)
    note = (
        f"MatMulNBits would run at {speeds[best].speedup:.2f}x the original's speed on these inputs: the weights are "
        "stored as bits that onnxruntime turns into floats as it loads, which keeps the speed"
    )
    return Decision(model=model, folded_only=True, notes=(note,), details=details)


def _speeds(model: ir.Model, candidates: Sequence[ir.Model], check: OutputCheck) -> tuple[Speed, ...] | str:
    if check.probe is None:
        raise ValueError("there is nothing to time on")
    context = check.context
    try:
        sessions = [
            runtime.open_session(one, device=context.device, threads=context.threads)
            for one in (model, *candidates)
        ]
        with context.timing():
            return paired_speeds(sessions[0], sessions[1:], check.probe.feeds, seconds=SECONDS)
    except CompressionError as error:
        return f"onnxruntime does not take MatMulNBits here ({error.message}); weights fold at load instead"
