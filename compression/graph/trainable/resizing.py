"""Resizing by nearest, linear and cubic interpolation, with padding and sampling beside it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.interpolation import (
    HALF_PIXELS,
    Interpolation,
    Stretch,
    matrix,
    nearest,
    outside,
)
from compression.graph.trainable.node import Node, Table, axis_of, integers
from compression.graph.trainable.padding import pad
from compression.graph.trainable.sampling import affine_grid, grid_sample

TORCH_MODES = {
    "linear": {3: "linear", 4: "bilinear", 5: "trilinear"},
    "cubic": {4: "bicubic"},
    "nearest": dict.fromkeys((3, 4, 5), "nearest"),
}


def resize(
    node: Node,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Opset 10 has only scales, in the second place, and reads at i / scale, rounded down."""
    attributes = node.attributes
    if node.opset < 11:
        return _upsampled(x, _numbers(roi), attributes.get("mode", "nearest"))
    how = Interpolation(
        mode=attributes.get("mode", "nearest"),
        coordinates=attributes.get("coordinate_transformation_mode", "half_pixel"),
        rounding=attributes.get("nearest_mode", "round_prefer_floor"),
        cubic_a=attributes.get("cubic_coeff_a", -0.75),
        exclude_outside=bool(attributes.get("exclude_outside", 0)),
        antialias=bool(attributes.get("antialias", 0)),
        extrapolation=attributes.get("extrapolation_value", 0.0),
    )
    axes = [axis_of(axis, x.ndim) for axis in attributes.get("axes") or range(x.ndim)]
    shape = [x.shape[axis] for axis in axes]
    if scales is not None and scales.numel():
        factors = _numbers(scales)
        counts = [math.floor(size * factor) for size, factor in zip(shape, factors, strict=True)]
    else:
        policy = attributes.get("keep_aspect_ratio_policy", "stretch")
        factors, counts = _fitted(shape, [] if sizes is None else integers(sizes), policy)
    return _resized(x, dict(zip(axes, _stretches(shape, counts, factors, _numbers(roi)), strict=True)), how)


def _numbers(tensor: Tensor | None) -> list[float]:
    return [] if tensor is None else [float(item) for item in tensor.tolist()]


def _fitted(shape: list[int], wanted: list[int], policy: str) -> tuple[list[float], list[int]]:
    """Factors and sizes that reach the wanted ones, or come near them with one factor for all axes."""
    factors = [goal / size for goal, size in zip(wanted, shape, strict=True)]
    if policy == "stretch":
        return factors, wanted
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [factor] * len(shape), [math.floor(factor * size + 0.5) for size in shape]


def _stretches(
    shape: Sequence[int], counts: Sequence[int], factors: Sequence[float], roi: list[float]
) -> list[Stretch]:
    half = len(shape)
    roi = roi or [0.0] * half + [1.0] * half
    return [
        Stretch(size=shape[i], count=counts[i], factor=factors[i], start=roi[i], end=roi[i + half])
        for i in range(half)
    ]


def upsample(node: Node, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """The scales are an input since opset 9, an attribute in 7, and those of height and width before."""
    factors = _numbers(scales) or list(node.attributes.get("scales") or ())
    if not factors:
        factors = [1.0, 1.0, node.attributes["height_scale"], node.attributes["width_scale"]]
    return _upsampled(x, factors, node.attributes.get("mode", "nearest"))


def _upsampled(x: Tensor, factors: list[float], mode: str) -> Tensor:
    mode = "linear" if mode == "bilinear" else mode
    how = Interpolation(mode=mode, coordinates="asymmetric", rounding="floor")
    counts = [math.floor(size * factor) for size, factor in zip(x.shape, factors, strict=True)]
    return _resized(x, dict(enumerate(_stretches(x.shape, counts, factors, []))), how)


def _resized(x: Tensor, stretches: dict[int, Stretch], how: Interpolation) -> Tensor:
    """By torch's own kernels where they compute the same, else axis by axis."""
    changed = {axis: stretch for axis, stretch in stretches.items() if not stretch.is_nothing}
    options = _torch_options(x, changed, how)
    if options is not None:
        return F.interpolate(x, **options)
    data = x if x.is_floating_point() or how.mode == "nearest" else x.float()
    for axis, stretch in changed.items():
        data = _along(data, axis, stretch, how)
    return data if data.dtype == x.dtype else data.round().to(x.dtype)


def _along(x: Tensor, axis: int, stretch: Stretch, how: Interpolation) -> Tensor:
    if how.mode == "nearest":
        y = x.index_select(axis, torch.as_tensor(nearest(stretch, how), device=x.device))
    else:
        weights = torch.as_tensor(matrix(stretch, how), dtype=x.dtype, device=x.device)
        y = torch.matmul(x.movedim(axis, -1), weights.t()).movedim(-1, axis)
    if how.coordinates != "tf_crop_and_resize":
        return y
    beyond = torch.as_tensor(outside(stretch, how), device=x.device)
    return y.masked_fill(beyond.reshape([-1 if i == axis else 1 for i in range(x.ndim)]), how.extrapolation)


def _torch_options(x: Tensor, changed: dict[int, Stretch], how: Interpolation) -> dict[str, Any] | None:
    """What F.interpolate has to be asked for; None where it cannot do the same."""
    mode = TORCH_MODES[how.mode].get(x.ndim)
    exact = all(stretch.is_exact for stretch in changed.values())
    if mode is None or not changed or min(changed) < 2 or not exact or not x.is_floating_point():
        return None
    size = [changed[axis].count if axis in changed else x.shape[axis] for axis in range(2, x.ndim)]
    if how.mode == "nearest":
        floored = how.coordinates == "asymmetric" and how.rounding == "floor"
        whole = all(stretch.factor.is_integer() for stretch in changed.values())
        rounded = how.coordinates in HALF_PIXELS and how.rounding.startswith("round_") and min(size) > 1
        return {"size": size, "mode": mode} if whole and (floored or rounded) else None
    if how.antialias or how.exclude_outside or (how.mode == "cubic" and how.cubic_a != -0.75):
        return None
    centred = how.coordinates == "half_pixel" or (how.coordinates in HALF_PIXELS and min(size) > 1)
    corners = how.coordinates == "align_corners"
    return {"size": size, "mode": mode, "align_corners": corners} if centred or corners else None


RESIZING: Table = {
    "AffineGrid": affine_grid,
    "GridSample": grid_sample,
    "Pad": pad,
    "Resize": resize,
    "Upsample": upsample,
    "com.microsoft::GridSample": grid_sample,
    "com.microsoft::Pad": pad,
}
