"""What a user asks of a mixture of precisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from compression.quantization.narrow.settings import Narrowing
from compression.quantization.rounding.blocks import Scheme

Precision = Literal["int4", "int8", "float16", "float32"]
PRECISIONS: tuple[Precision, ...] = ("int4", "int8", "float16", "float32")
"""From the smallest up."""
KEPT: Precision = "float32"
Sensitivity = Literal["alone", "rest", "both"]
Metric = Literal["accuracy", "top5", "precision", "recall", "f1", "mse", "mae"]
Mixture = Mapping[str, Precision]
"""By a weight's name, the precision it is stored in; those not named are as they were."""
DEFAULT_SQNR_DB = 30.0


@dataclass(frozen=True, kw_only=True)
class MixedOptions:
    """The parameters of quantize_mixed, as its fields describe them."""

    choices: tuple[Precision, ...]
    min_sqnr_db: float | None
    max_metric_drop: float | None
    metric: Metric | None
    max_size_bytes: int | None
    sensitivity: Sensitivity
    algorithm: Literal["rtn", "hqq", "gptq"]
    block_size: int
    symmetric: bool
    samples: int
    metric_samples: int
    max_seconds: float

    @property
    def floor_db(self) -> float | None:
        """What the outputs have to reach; the default where nothing else bounds them."""
        if self.min_sqnr_db is None and self.max_metric_drop is None and self.max_size_bytes is None:
            return DEFAULT_SQNR_DB
        return self.min_sqnr_db

    def narrowing(self, samples: int) -> Narrowing:
        """How weights are rounded to four bits, fitted to so many samples."""
        scheme = Scheme(bits=4, block=self.block_size, symmetric=self.symmetric)
        return Narrowing(scheme=scheme, algorithm=self.algorithm, samples=samples)
