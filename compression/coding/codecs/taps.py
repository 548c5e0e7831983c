"""Kernels of convolutions: each tap is told in part by the taps before it in its kernel."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from compression.coding.codec import Array, Coded, Decode, Encode, Form, Incoming, Units, check, joined

MAX_TAPS, MAX_ORDER = 64, 16
_BITS = 6
_MOST_SUM = 255
"""Of the coefficients' absolute values: sums of so many times a signed byte, rounded, stay within 16 bits."""
_ORDERS = (4, 8)
_MUST_SAVE = 0.01
_BLOCK = 1 << 13


class Taps:
    """What a linear prediction leaves of signed bytes, whose coefficients all kernels of the chunk share.

    Row by row, units are kernels of K taps. Of tap k is stored, modulo 256, what is missing to
    floor(sum over the P taps j before it of c[k, j] w[j] / 64 + 1/2).
    """

    number: ClassVar[int] = 13
    name: ClassVar[str] = "taps"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        if units.width != 1 or not 1 < units.taps <= MAX_TAPS or units.columns % units.taps:
            return
        kernels = units.values.view(np.int8).reshape(-1, units.taps)
        covariance = _covariance(units)
        found = [
            (_bits(covariance, fitted) * len(kernels) / 8 + _size(fitted), fitted)
            for fitted in (_fitted(covariance, order) for order in _ORDERS)
        ]
        cost, coefficients = min(found, key=lambda each: each[0])
        if cost + _MUST_SAVE * units.count > _bits(covariance, []) * len(kernels) / 8:
            return
        left = np.empty_like(kernels)
        for block in _blocks(len(kernels)):
            planes = _planes(kernels[block])
            told = np.stack([_told(planes, tap, own) for tap, own in enumerate(coefficients)], axis=1)
            left[block] = (kernels[block] - told).astype(np.int8)
        own = bytes([units.taps, max(map(len, coefficients))])
        own += b"".join(part.astype(np.int8).tobytes() for part in coefficients)
        yield joined(
            self.name, own, nested(Units(left.view(np.uint8).reshape(-1), units.columns, units.taps))
        )

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        check(form.width == 1, f"taps of {form.width} bytes")
        taps, order = incoming.side.byte(), incoming.side.byte()
        check(1 < taps <= MAX_TAPS and form.count % taps == 0, f"kernels of {taps} taps")
        check(0 < order <= MAX_ORDER, f"taps told by {order}")
        coefficients = [
            np.frombuffer(incoming.side.take(min(tap, order)), np.int8).astype(np.int16)
            for tap in range(taps)
        ]
        most = max(int(np.abs(own).sum()) for own in coefficients)
        check(most <= _MOST_SUM, "coefficients that could overflow")
        kernels = nested(form).view(np.int8).reshape(-1, taps)
        found = np.empty_like(kernels)
        for block in _blocks(len(kernels)):
            planes = _planes(kernels[block])
            for tap, own in enumerate(coefficients):
                planes[tap] = (planes[tap] + _told(planes, tap, own)).astype(np.int8)
            found[block] = planes.T
        return found.view(np.uint8).reshape(-1)


def _blocks(count: int) -> list[slice]:
    """Kernels at a time, such that their planes stay in the cache."""
    return [slice(at, at + _BLOCK) for at in range(0, count, _BLOCK)]


def _planes(kernels: Array) -> Array:
    """[taps, kernels] in 16 bits."""
    return np.ascontiguousarray(kernels.T).astype(np.int16)


def _told(planes: Array, tap: int, coefficients: Array) -> Array:
    told = np.full(planes.shape[1], 1 << _BITS - 1, np.int16)
    part = np.empty_like(told)
    for plane, coefficient in zip(planes[tap - len(coefficients) : tap], coefficients, strict=True):
        told += np.multiply(plane, coefficient, out=part)
    told >>= _BITS
    return told


def _covariance(units: Units) -> Array:
    """[taps, taps] over all kernels, with each row of units scaled to the same mean magnitude."""
    rows = units.values.view(np.int8).reshape(units.rows, units.columns).astype(np.float64)
    rows /= np.abs(rows).mean(axis=1, keepdims=True) + 1e-3
    kernels = rows.reshape(-1, units.taps)
    covariance = kernels.T @ kernels / len(kernels)
    return np.asarray(covariance + 1e-6 * (np.trace(covariance) + 1) * np.eye(units.taps))


def _fitted(covariance: Array, order: int) -> list[Array]:
    """For each tap the coefficients of least squares for the taps before it, in 64ths."""
    found = []
    for tap in range(len(covariance)):
        before = slice(max(tap - order, 0), tap)
        exact = np.linalg.solve(covariance[before, before], covariance[before, tap]) * (1 << _BITS)
        whole = np.rint(exact).clip(-127, 127)
        while np.abs(whole).sum() > _MOST_SUM:
            whole = np.trunc(whole * 0.9)
        found.append(whole.astype(np.int16))
    return found


def _bits(covariance: Array, coefficients: list[Array]) -> float:
    """Of a kernel, but for a constant: half the logarithm of what prediction leaves of each tap's variance."""
    bits = 0.0
    for tap in range(len(covariance)):
        own = coefficients[tap] / (1 << _BITS) if coefficients else np.zeros(0)
        weights = np.append(-own, 1.0)
        part = slice(tap - len(own), tap + 1)
        bits += 0.5 * float(np.log2(weights @ covariance[part, part] @ weights))
    return bits


def _size(coefficients: list[Array]) -> int:
    return 2 + sum(map(len, coefficients))
