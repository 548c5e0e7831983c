"""Targets: what the processors and runtimes that a result may run on want of its integers."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from compression import runtime
from compression.errors import NotApplicable
from compression.method import Device
from compression.quantization.regions import ALL_GROUPS

Activations = Literal["auto", "uint8", "int8"]
Weights = Literal["auto", "uint8", "int8"]
TargetName = Literal["cpu", "cpu-vnni", "cpu-avx2", "cpu-arm", "cuda", "tensorrt"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the result is to run, and how integers are written for it."""

    name: TargetName
    reason: str
    """Why its integers are as they are."""
    activations: type[np.integer[Any]]
    groups: frozenset[str]
    """Operators that compute in integers where nothing can be timed: those that are known to gain there."""
    weights: type[np.integer[Any]] = np.int8
    """Unsigned ones have their zero point at 128."""
    weight_bits: int = 8
    """7 where two products of bytes are added up in 16 bits, which must not overflow."""
    centred: bool = False
    """Zero points of activations stay in the middle of the type."""
    integer_biases: bool = True
    """Biases are int32 behind a DequantizeLinear; else they stay floats."""
    here: bool = False
    """This machine is one, so that candidates can be timed."""


_TARGETS: tuple[Target, ...] = (
    Target(
        name="cpu-vnni",
        reason="the CPU has VNNI, which multiplies unsigned by signed bytes exactly",
        activations=np.uint8,
        groups=frozenset({"conv", "matmul"}),
    ),
    Target(
        name="cpu-avx2",
        reason="without VNNI, VPMADDUBSW adds two products into 16 bits and saturates, unless weights have 7 bits",
        activations=np.uint8,
        weight_bits=7,
        groups=frozenset({"conv", "matmul"}),
    ),
    Target(
        name="cpu-arm",
        reason="ARM multiplies signed by signed bytes (SDOT, SMMLA)",
        activations=np.int8,
        groups=frozenset({"conv", "depthwise", "matmul"}),
    ),
    Target(
        name="cuda",
        reason="onnxruntime's CUDA provider has no integer convolution",
        activations=np.int8,
        groups=frozenset(),
    ),
    Target(
        name="tensorrt",
        reason="TensorRT takes signed activations with zero point 0, and biases as floats",
        activations=np.int8,
        centred=True,
        integer_biases=False,
        groups=ALL_GROUPS,
    ),
)
TARGETS = {target.name: target for target in _TARGETS}
_TYPES: Mapping[str, type[np.integer[Any]]] = {"uint8": np.uint8, "int8": np.int8}


def resolve_target(
    wanted: TargetName, device: Device, activations: Activations = "auto", weights: Weights = "auto"
) -> Target:
    """The target by its name; `cpu` is whatever the job runs on, be it a GPU.

    `activations` and `weights` other than `auto` go before the target's own. Signed activations need 7 bits as
    unsigned ones do, since onnxruntime adds 128 to them on x86; unsigned weights do not: their products are added up in
    32 bits.

    Raises:
        NotApplicable: unsigned weights beside signed activations, for which no runtime has kernels.
    """
    present = "cuda" if device == "cuda" else _processor()
    found = replace(TARGETS[present], here=True) if wanted in ("cpu", present) else TARGETS[wanted]
    if activations != "auto":
        found = replace(found, activations=_TYPES[activations], reason=f"{activations} was asked for")
    if weights != "uint8":
        return found
    if found.activations is not np.uint8:
        raise NotApplicable(
            f"no kernel of {found.name} multiplies int8 activations by uint8 weights",
            where="weights",
            hint="leave weights at auto, or take uint8 activations on an x86 CPU",
        )
    return replace(found, weights=np.uint8, weight_bits=8)


def _processor() -> TargetName:
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "cpu-arm"
    return "cpu-vnni" if runtime.has_vnni() else "cpu-avx2"
