"""Finds the codes of one weight: the algorithm asked for, or rounding to nearest where that is no worse."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compression.quantization.narrow.layout import Layout
from compression.quantization.narrow.moments import Moments
from compression.quantization.narrow.narrowed import Errors, Narrowed
from compression.quantization.narrow.packing import PLANES, pack
from compression.quantization.narrow.settings import Narrowing
from compression.quantization.narrow.spill import Spill
from compression.quantization.rounding.awq import find_scales
from compression.quantization.rounding.blocks import Codes, Floats, Rounded, Scheme, encode, in_blocks
from compression.quantization.rounding.gptq import round_by_gptq
from compression.quantization.rounding.grids import searched_grid
from compression.quantization.rounding.hqq import round_half_quadratic
from compression.quantization.rounding.objective import output_energy
from compression.quantization.rounding.rtn import round_to_nearest
from compression.quantization.storage import as_numpy, release

_SAMPLE_ROWS = 256
NEAREST = "rtn"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Codes of a strip of rows, found one way, and the strip as the layer will compute with it."""

    name: str
    rounded: Rounded
    values: Floats


def find_codes(
    tensor: ir.TensorProtocol,
    layout: Layout,
    asked: Narrowing,
    moments: Moments | None,
    input_scales: Floats | None,
    *,
    spill: Spill,
    stored_bits: int,
) -> Narrowed:
    """Round a weight, a strip of rows at a time, each by whatever leaves its outputs nearest on rows kept aside.

    Args:
        tensor: the stored weight; its pages are let go of afterwards.
        layout: how it is read as a matrix.
        asked: bits, blocks and algorithm.
        moments: of the layer's inputs, where there are any; else the weight's own error is what counts.
        input_scales: what the inputs will be divided by (AWQ), float32 (K,).
        spill: where the codes go.
        stored_bits: bits that each code takes there.
    """
    sinks = [spill.sink() for _ in PLANES[stored_bits]]
    errors, names = Errors(), []
    scales: list[Floats] = []
    zeros: list[Codes] = []
    whole = as_numpy(tensor)
    for rows in layout.strips():
        weight = layout.strip(whole, rows)
        best = _best(weight, asked, moments, input_scales, errors)
        codes = in_blocks(best.rounded.codes, asked.scheme)
        for sink, plane in zip(sinks, pack(codes, stored_bits), strict=True):
            sink.write(plane)
        scales.append(best.rounded.grid.scale)
        zeros.append(best.rounded.grid.zero_point)
        names.append(best.name)
    del whole
    release(tensor)
    count = layout.rows * asked.scheme.count(layout.width) * asked.scheme.size(layout.width)
    planes = tuple(
        sink.tensor(np.dtype(np.uint8), (-(-count * width // 8),))
        for sink, width in zip(sinks, PLANES[stored_bits], strict=True)
    )
    return Narrowed(
        layout=layout,
        scheme=asked.scheme,
        stored_bits=stored_bits,
        planes=planes,
        scale=np.concatenate(scales),
        zero_point=np.concatenate(zeros),
        input_scales=input_scales,
        errors=errors,
        algorithm=" and ".join(sorted(set(names))),
    )


def common_scales(
    weights: Sequence[tuple[ir.TensorProtocol, Layout]], scheme: Scheme, moments: Moments
) -> Floats | None:
    """AWQ's scales for layers that read the same input, from some rows of each; None where equal ones are best."""
    sample = []
    for tensor, layout in weights:
        whole = as_numpy(tensor)
        step = max(layout.rows * len(weights) // _SAMPLE_ROWS, 1)
        sample.append(layout.strip(whole, slice(0, layout.rows, step)))
        del whole
        release(tensor)
    magnitudes = moments.magnitudes / max(moments.fit_rows, 1)
    return find_scales(np.concatenate(sample), scheme, moments.fit, magnitudes)


def _best(
    weight: Floats, asked: Narrowing, moments: Moments | None, input_scales: Floats | None, errors: Errors
) -> Candidate:
    def noise(candidate: Candidate) -> float:
        if moments is None:
            return _energy(weight - candidate.values)
        return output_energy(weight - candidate.values, moments.judge)

    nearest = _candidate(NEAREST, round_to_nearest, weight, asked.scheme, None)
    made = _others(weight, asked, moments, input_scales)
    if input_scales is None:
        made.insert(0, nearest)
    noises = [noise(candidate) for candidate in made]
    best = min(range(len(made)), key=lambda place: noises[place])
    errors.signal += _energy(weight)
    errors.noise += _energy(weight - made[best].values)
    if moments is not None:
        errors.output += output_energy(weight, moments.judge)
        errors.output_noise += noises[best]
        errors.nearest_noise += noises[0] if input_scales is None else noise(nearest)
    return made[best]


def _energy(matrix: Floats) -> float:
    return float(np.einsum("rk,rk->", matrix, matrix, dtype=np.float64))


def _others(
    weight: Floats, asked: Narrowing, moments: Moments | None, input_scales: Floats | None
) -> list[Candidate]:
    scheme = asked.scheme
    if asked.algorithm == "rtn":
        return []
    if asked.algorithm == "hqq":
        return [_candidate("hqq", round_half_quadratic, weight, scheme, input_scales)]
    if moments is None:
        return [_candidate("rtn with searched scales", _searched, weight, scheme, input_scales)]
    by_energy = _searched_for(moments, input_scales)
    if asked.algorithm == "awq":
        name = "rtn with searched scales" if input_scales is None else "awq"
        return [_candidate(name, by_energy, weight, scheme, input_scales)]
    return [
        _candidate("gptq", lambda w, s: round_by_gptq(w, s, moments.fit), weight, scheme, None),
        _candidate("rtn with searched scales", by_energy, weight, scheme, None),
    ]


def _candidate(
    name: str,
    rounding: Callable[[Floats, Scheme], Rounded],
    weight: Floats,
    scheme: Scheme,
    input_scales: Floats | None,
) -> Candidate:
    if input_scales is None:
        rounded = rounding(weight, scheme)
        return Candidate(name=name, rounded=rounded, values=rounded.values())
    rounded = rounding(weight * input_scales, scheme)
    return Candidate(name=name, rounded=rounded, values=rounded.values() / input_scales)


def _searched(weight: Floats, scheme: Scheme) -> Rounded:
    grid = searched_grid(weight, scheme)
    return Rounded(codes=encode(weight, grid), grid=grid)


def _searched_for(moments: Moments, input_scales: Floats | None) -> Callable[[Floats, Scheme], Rounded]:
    """Rounding to nearest on scales searched for by what the inputs carry."""
    energy = np.diagonal(moments.fit)
    if input_scales is not None:
        energy = energy / np.square(input_scales.astype(np.float64))

    def rounding(weight: Floats, scheme: Scheme) -> Rounded:
        grid = searched_grid(weight, scheme, energy)
        return Rounded(codes=encode(weight, grid), grid=grid)

    return rounding
