"""Codes and dictionary of one weight: by itself, or so that what its layer gives on data stays near.

With the second moments C of a layer's inputs the error that counts is tr(E C E^T) of E = W - W'. Blocks of inputs are
coded one after the other, each in the metric that is left when all later weights may still make up for its error, and
they do: GPTQ (Frantar et al. 2023, arXiv:2210.17323) with whole blocks in the place of single inputs. Between passes
the dictionary is fitted to the codes in the same metric, by conjugate gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from compression.quantization.rounding.gptq import upper_factor
from compression.sparse_coding.dictionary import coded, learn, matrix, refitted, sample, with_steps
from compression.sparse_coding.layout import Layout
from compression.sparse_coding.pursuit import Codes, Doubles
from compression.sparse_coding.sizes import usual_atoms

_PASSES = 2
_STEPS = 20
_DAMPING = 1e-3
_TRIES = 5
_TIGHTER = 0.8


@dataclass(frozen=True, kw_only=True)
class Coding:
    """What a user asks of sparse codes, as the fields of sparse_code describe it."""

    atoms: int | None
    block: int | None
    nonzeros: int
    error: float | None
    value_bits: int
    rounds: int
    seed: int

    @property
    def top(self) -> int:
        return int(2 ** (self.value_bits - 1)) - 1


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Whole gains of atoms. Signals lie row by row, the blocks of a row side by side."""

    codes: Codes
    dictionary: Doubles
    layout: Layout

    def matrix(self) -> Doubles:
        """The weight (rows, width)."""
        return self.layout.joined(self.codes.of(self.dictionary))


def fit(
    weight: Doubles,
    layout: Layout,
    coding: Coding,
    *,
    moments: Doubles | None,
    told: Callable[[float], None],
) -> Fitted:
    """Code a matrix (rows, width); `moments` (width, width) says what counts, None that every weight does.

    With `coding.error` signals get entries until the whole error is within it, as many as may be given.
    """
    atoms = coding.atoms or usual_atoms(layout.signals)
    wanted = 0.0 if coding.error is None else coding.error
    signals = layout.whole(weight)
    tolerance = wanted**2 * float(np.mean(np.sum(signals**2, axis=1)))
    dictionary = learn(
        signals,
        atoms,
        coding.nonzeros,
        tolerance=tolerance,
        rounds=coding.rounds,
        seed=coding.seed,
        told=lambda done: told(0.7 * done),
    )
    seen = sample(signals, atoms, np.random.default_rng(coding.seed))
    dictionary = with_steps(seen, dictionary, coding.nonzeros, tolerance, coding.top)
    told(0.8)
    metric = None if moments is None else _damped(moments)
    return _within(weight, Fitted(codes=_nothing(), dictionary=dictionary, layout=layout), coding, metric)


def relative_error(weight: Doubles, made: Doubles, moments: Doubles | None) -> float:
    """|W - W'| / |W| (Frobenius), or of the outputs where moments are given."""
    return float(np.sqrt(_energy(weight - made, moments) / max(_energy(weight, moments), 1e-300)))


def _within(weight: Doubles, start: Fitted, coding: Coding, metric: Doubles | None) -> Fitted:
    """Coded within the error that is allowed, where there is one and it can be done."""
    tolerance = (coding.error or 0.0) ** 2 * _energy(weight, metric) / max(start.layout.signals, 1)
    found = _passes(weight, start, coding, metric, tolerance)
    for _ in range(_TRIES):
        if coding.error is None or relative_error(weight, found.matrix(), metric) <= coding.error:
            break
        tolerance *= _TIGHTER**2
        found = _passes(weight, start, coding, metric, tolerance)
    return found


def _passes(
    weight: Doubles, start: Fitted, coding: Coding, metric: Doubles | None, tolerance: float
) -> Fitted:
    layout, dictionary = start.layout, start.dictionary
    best, least = start, np.inf
    for _ in range(_PASSES):
        codes = (
            _alone(weight, layout, dictionary, coding, tolerance)
            if metric is None
            else _in_turn(weight, layout, dictionary, coding, tolerance, factor=upper_factor(metric))
        )
        dictionary = (
            refitted(layout.whole(weight), _of_whole(codes, layout), dictionary)
            if metric is None
            else _refitted(weight, codes, layout, dictionary, metric)
        )
        made = Fitted(codes=codes, dictionary=dictionary, layout=layout)
        error = _energy(weight - made.matrix(), metric)
        if error < least:
            best, least = made, error
    return best


def _alone(weight: Doubles, layout: Layout, dictionary: Doubles, coding: Coding, tolerance: float) -> Codes:
    """Every block by itself; blocks of one length together."""
    found = _empty(layout, coding.nonzeros)
    full = layout.width // layout.block
    whole = coded(layout.whole(weight), dictionary, coding.nonzeros, tolerance, coding.top)
    _put(found, slice(0, full), layout, whole)
    if full < layout.blocks:
        rest = weight[:, full * layout.block :]
        short = coded(rest, dictionary[:, : rest.shape[1]], coding.nonzeros, tolerance, coding.top)
        _put(found, slice(full, full + 1), layout, short)
    return found


def _in_turn(
    weight: Doubles,
    layout: Layout,
    dictionary: Doubles,
    coding: Coding,
    tolerance: float,
    *,
    factor: Doubles,
) -> Codes:
    """Block after block, each one's error made up for by those that follow."""
    left, found = weight.copy(), _empty(layout, coding.nonzeros)
    for place in range(layout.blocks):
        start, stop = place * layout.block, min((place + 1) * layout.block, layout.width)
        own = dictionary[:, : stop - start]
        inverse = np.linalg.inv(factor[start:stop, start:stop])
        part = left[:, start:stop]
        codes = coded(part @ inverse, own @ inverse, coding.nonzeros, tolerance, coding.top)
        _put(found, slice(place, place + 1), layout, codes)
        left[:, stop:] -= ((part - codes.of(own)) @ inverse) @ factor[start:stop, stop:]
    return found


def _refitted(weight: Doubles, codes: Codes, layout: Layout, dictionary: Doubles, metric: Doubles) -> Doubles:
    """Least squares of tr((W - SD) C (W - SD)^T) over D, by conjugate gradients from the dictionary there is."""
    gains = matrix(codes, len(dictionary))

    def pulled(matrix: Doubles) -> Doubles:
        return np.asarray(gains.T @ layout.cut(matrix @ metric))

    left = pulled(weight - layout.joined(gains @ dictionary))
    made, way, energy = dictionary.copy(), left.copy(), float(np.sum(left**2))
    first = energy
    for _ in range(_STEPS):
        if energy <= 1e-16 * first:
            break
        moved = pulled(layout.joined(gains @ way))
        step = energy / max(float(np.sum(way * moved)), 1e-300)
        made += step * way
        left -= step * moved
        before, energy = energy, float(np.sum(left**2))
        way = left + energy / before * way
    return made


def _energy(matrix: Doubles, moments: Doubles | None) -> float:
    return float(np.sum(matrix**2 if moments is None else (matrix @ moments) * matrix))


def _damped(moments: Doubles) -> Doubles:
    mean = float(np.trace(moments)) / len(moments) or 1.0
    return moments + _DAMPING * mean * np.eye(len(moments))


def _nothing() -> Codes:
    return Codes(atoms=np.zeros((0, 1), np.int64), gains=np.zeros((0, 1)))


def _empty(layout: Layout, nonzeros: int) -> Codes:
    size = (layout.signals, nonzeros)
    return Codes(atoms=np.zeros(size, np.int64), gains=np.zeros(size))


def _put(found: Codes, places: slice, layout: Layout, codes: Codes) -> None:
    """Codes of some of each row's blocks into those of all."""
    for whole, part in ((found.atoms, codes.atoms), (found.gains, codes.gains)):
        within = whole.reshape(layout.rows, layout.blocks, -1)[:, places]
        within[:] = part.reshape(within.shape)


def _of_whole(codes: Codes, layout: Layout) -> Codes:
    full, slots = layout.width // layout.block, codes.atoms.shape[1]
    return Codes(
        atoms=codes.atoms.reshape(layout.rows, layout.blocks, slots)[:, :full].reshape(-1, slots),
        gains=codes.gains.reshape(layout.rows, layout.blocks, slots)[:, :full].reshape(-1, slots),
    )
