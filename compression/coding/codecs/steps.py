"""Floats on a uniform grid: whole numbers, and the step between them."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from compression.coding.codec import Array, Coded, Decode, Encode, Form, Incoming, Units, check, joined

_MOST = 1 << 15
_ULPS = 2


class Steps:
    """float32 values that are a whole number times one step, multiplied in float32."""

    number: ClassVar[int] = 12
    name: ClassVar[str] = "steps"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        step = step_of(units)
        if step is None:
            return
        places = np.rint(units.values.view(np.float32).astype(np.float64) / np.float64(step)).astype(np.int64)
        width = 1 if np.abs(places).max() < 128 else 2
        whole = places.astype(f"<i{width}").view(f"<u{width}")
        inner = nested(Units(whole, units.columns))
        yield joined(self.name, bytes([width]) + np.asarray(step, "<f4").tobytes(), inner)

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        width = incoming.side.byte()
        check(form.width == 4 and width in (1, 2), "steps of an unknown kind")
        step = np.frombuffer(incoming.side.take(4), "<f4")[0]
        check(bool(np.isfinite(step)), "a step that is not finite")
        whole = nested(Form(form.count, width, form.columns)).view(f"<i{width}")
        with np.errstate(over="ignore"):
            values = whole.astype(np.float32) * np.float32(step)
        return np.asarray(values.astype("<f4").view("<u4"))


def step_of(units: Units) -> np.float32 | None:
    """The step of which all values are multiples of up to 2^15, to the bit; None where there is none."""
    if units.width != 4 or not units.count or len(units.distinct[0]) > 2 * _MOST:
        return None
    values = np.sort(units.distinct[0].view(np.float32))
    if not np.isfinite(values).all() or len(values) < 2:
        return None
    wide = values.astype(np.float64)
    apart = np.diff(np.sort(np.append(wide, 0.0)))
    largest = np.abs(wide).max()
    finest = apart[apart > 0].min(initial=np.inf)
    whole = np.rint(largest / finest)
    if not 1 <= whole < _MOST:
        return None
    return next((step for step in _near(np.float32(largest / whole)) if _fits(values, step)), None)


def _near(step: np.float32) -> Iterator[np.float32]:
    """It and its neighbours among floats, the nearest first."""
    yield step
    for ulps in range(1, _ULPS + 1):
        for sign in (-1, 1):
            yield np.float32(step + sign * ulps * np.spacing(step))


def _fits(values: Array, step: np.float32) -> bool:
    if not np.isfinite(step) or step <= 0:
        return False
    # Through integers, which have no negative zero.
    whole = np.rint(values.astype(np.float64) / np.float64(step)).astype(np.int64)
    again = whole.astype(np.float32) * step
    return bool(np.array_equal(again.view(np.uint32), values.view(np.uint32)))
