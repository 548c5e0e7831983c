"""What integer types suit the processor that the result is to run on."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from compression import runtime
from compression.method import Device

Activations = Literal["auto", "uint8", "int8"]


@dataclass(frozen=True, kw_only=True)
class IntegerTypes:
    """Types of activations and weights that the kernels of a device like, and why."""

    activations: type[np.integer[Any]]
    weight_bits: int
    reason: str


def integer_types(device: Device, wanted: Activations) -> IntegerTypes:
    """Unsigned activations where the CPU multiplies u8 by s8 exactly (VNNI), signed ones elsewhere.

    Without VNNI, vpmaddubsw adds two u8 x s8 products into 16 bits and saturates, so that unsigned
    activations need weights of 7 bits.
    """
    if device == "cuda":
        chosen: Activations = "int8" if wanted == "auto" else wanted
        return _types(chosen, 8, "a GPU takes signed activations")
    exact = runtime.has_vnni()
    if wanted == "auto":
        wanted = "uint8" if exact else "int8"
    bits = 8 if exact or wanted == "int8" else 7
    return _types(wanted, bits, "the CPU has VNNI" if exact else "the CPU lacks VNNI")


def _types(activations: Activations, bits: int, reason: str) -> IntegerTypes:
    dtype = np.uint8 if activations == "uint8" else np.int8
    return IntegerTypes(activations=dtype, weight_bits=bits, reason=reason)
