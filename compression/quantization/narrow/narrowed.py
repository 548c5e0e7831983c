"""A weight that was rounded to few bits: its codes and grid as tensors, and how true they are."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compression.quantization.affine import ratio_db
from compression.quantization.narrow.layout import Layout
from compression.quantization.narrow.packing import plane_bytes
from compression.quantization.rounding.blocks import Codes, Floats, Scheme


@dataclass(kw_only=True)
class Errors:
    """Energies that add up over strips of rows."""

    signal: float = 0.0
    noise: float = 0.0
    """Of the weight itself."""
    output: float = 0.0
    output_noise: float = 0.0
    nearest_noise: float = 0.0
    """Of the layer's outputs on rows kept aside; the last is that of rounding to nearest."""

    @property
    def sqnr_db(self) -> float:
        return ratio_db(self.signal, self.noise)

    def numbers(self) -> dict[str, float]:
        """Finite figures for a report: of the weight in decibels, of the outputs as a share of them."""
        numbers = {} if abs(self.sqnr_db) == float("inf") else {"sqnr_db": self.sqnr_db}
        if self.output > 0:
            numbers["output_error"] = float(np.sqrt(self.output_noise / self.output))
            numbers["nearest_output_error"] = float(np.sqrt(self.nearest_noise / self.output))
        return numbers


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """Planes hold the codes of a matrix (rows, blocks * size), flat, as `packing.pack` lays them out."""

    layout: Layout
    scheme: Scheme
    stored_bits: int
    """Bits of a code in the planes: the scheme's, or 8 where they cannot be taken apart."""
    planes: tuple[ir.TensorProtocol, ...]
    scale: Floats
    """(rows, blocks)"""
    zero_point: Codes
    """(rows, blocks); all the middle code where the scheme is symmetric."""
    input_scales: Floats | None
    """(K,): the codes are those of the weight times these, and the layer's inputs are to be divided by them."""
    errors: Errors
    algorithm: str
    """What the codes were found by in the end."""

    @property
    def blocks(self) -> int:
        return self.scheme.count(self.layout.width)

    @property
    def size(self) -> int:
        return self.scheme.size(self.layout.width)


def narrowed_bytes(rows: int, width: int, scheme: Scheme, stored_bits: int) -> int:
    """Bytes of codes, scales and zero points in the file."""
    blocks = rows * scheme.count(width)
    codes = plane_bytes(blocks * scheme.size(width), stored_bits)
    return codes + 4 * blocks + (0 if scheme.symmetric else plane_bytes(blocks, stored_bits))
