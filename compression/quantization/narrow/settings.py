"""What a user asks of weights with few bits."""

from dataclasses import dataclass
from typing import Literal

from compression.quantization.rounding.blocks import Scheme

SHIFT_OPSET = 11
"""The first that has BitShift."""
Algorithm = Literal["rtn", "hqq", "gptq", "awq"]
Storage = Literal["auto", "matmul_nbits", "dequantize_linear", "folded"]


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """How weights are rounded and how they are stored."""

    scheme: Scheme
    algorithm: Algorithm = "rtn"
    storage: Storage = "auto"
    min_sqnr_db: float | None = None
    """A weight that comes out less true than this stays as it is."""
    samples: int = 256
    """Calibration samples that inputs' moments are taken from, at most."""

    @property
    def by_inputs(self) -> bool:
        """Whether the rounding is fitted to what the layers are fed."""
        return self.algorithm in ("gptq", "awq")

    def stored_bits(self, opset: int) -> int:
        """Bits of a code in the file: its own, or 8 where the operator set cannot take bytes apart."""
        return self.scheme.bits if opset >= SHIFT_OPSET else 8
