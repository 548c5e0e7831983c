"""clip_weights: outliers are cut off, or weights are drawn towards +-1."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from compression.method import (
    NO_MODELS,
    Change,
    Forecast,
    LayerOutcome,
    Method,
    Problem,
    Role,
    StepContext,
    StepOutcome,
)
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.weight_targets import OP_TYPES, Target, find_targets, put, streaming_memory, target_weights

if TYPE_CHECKING:
    import onnx_ir as ir

Mode = Literal["percentile", "limit", "toward_sign"]
PARAMETER: Mapping[Mode, str] = {"percentile": "percentile", "limit": "limit", "toward_sign": "rate"}


class ClipWeights(Method):
    """Two things that both are called clipping, told apart by `mode`.

    `percentile` and `limit` cut: x' = min(max(x, -c), c), where c is a percentile of |x| in each weight,
    or given. `toward_sign` draws every weight towards +-1 by a rate: x' = x * (1 - a) + a * sign(x);
    zeros stay zero.
    """

    title: ClassVar[str] = "Cut off outlying weights, or draw weights towards +-1"
    source: ClassVar[str] = (
        "x' = x * (1 - a) + a * sign(x) with clipping rate a; the percentile clip is the usual one before "
        "quantization, as in Jacob et al. 2018 (arXiv:1712.05877) and Zhao et al. 2019 (arXiv:1901.09504)"
    )
    changes: ClassVar[tuple[Change, ...]] = ("values",)
    op_types: ClassVar[frozenset[str] | None] = OP_TYPES
    example: ClassVar[Mapping[str, Any]] = {
        "method": "clip_weights",
        "mode": "percentile",
        "percentile": 99.9,
    }

    method: Literal["clip_weights"] = "clip_weights"
    mode: Mode = Field("percentile", description="which clipping: percentile, fixed limit, or towards +-1")
    percentile: float | None = Field(
        None,
        ge=50,
        lt=100,
        description="mode `percentile`: c is this percentile of |x|, by weight; default 99.9",
    )
    limit: float | None = Field(None, gt=0, le=1e6, description="mode `limit`: c itself")
    rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="mode `toward_sign`: a, 0 leaves the weights and 1 makes them their signs",
    )

    @model_validator(mode="after")
    def _fields_of_the_mode(self) -> Self:
        for mode, name in PARAMETER.items():
            given = getattr(self, name) is not None
            if given and mode != self.mode:
                raise ValueError(f"{name} belongs to the mode {mode!r}, the mode here is {self.mode!r}")
            if mode == self.mode != "percentile" and not given:
                raise ValueError(f"the mode {mode!r} needs {name}")
        return self

    def unfit(self, layer: LayerSummary) -> str | None:
        reason = super().unfit(layer)
        if reason is None and not target_weights(layer):
            return "has one-dimensional weights only, which are not clipped"
        return reason

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        forecast = super().forecast(model, data, models)
        text = "values only: the file is not smaller; clipping prepares weights for quantization"
        warning = Problem(code="values_only", message=text, hint="follow it with a quantizing step")
        return forecast.model_copy(
            update={"warnings": (*forecast.warnings, warning), "peak_memory_bytes": streaming_memory(model)}
        )

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import layers, select

        chosen = select(model, self)
        targets, kept = find_targets(chosen, layers(model))
        outcomes = {name: LayerOutcome(layer=name, changed=False, note=note) for name, note in kept.items()}
        for index, target in enumerate(targets):
            note, numbers = self._clip(target)
            for layer in target.layers:
                changed = numbers["moved"] > 0
                outcomes.setdefault(
                    layer.name, LayerOutcome(layer=layer.name, changed=changed, note=note, numbers=numbers)
                )
            context.report((index + 1) / len(targets), f"clipped {target.layers[0].name}")
        return StepOutcome(
            model=model, layers=tuple(outcomes[layer.name] for layer in chosen if layer.name in outcomes)
        )

    def _clip(self, target: Target) -> tuple[str, dict[str, float]]:
        values = target.tensor.numpy()
        if self.mode == "toward_sign":
            rate = self.rate or 0.0
            moved = int(np.count_nonzero((values != 0) & (np.abs(values) != 1)))
            put(target, lambda array: toward_sign(array, rate))
            return f"drawn towards +-1 by {rate:g}", {"moved": moved, "rate": rate}
        limit = self.limit or percentile_limit(values, self.percentile or 99.9)
        moved = int(np.count_nonzero(np.abs(values.astype(np.float64)) > limit))
        put(target, lambda array: clip_at(array, limit))
        return f"{moved:,} of {values.size:,} weights cut at {limit:.6g}", {"moved": moved, "limit": limit}


def percentile_limit(values: np.ndarray, percentile: float) -> float:
    """The percentile of |x|, interpolated linearly between neighbours as numpy does."""
    return float(np.percentile(np.abs(values.astype(np.float64)), percentile))


def clip_at(values: np.ndarray, limit: float) -> np.ndarray:
    """x' = min(max(x, -c), c), rounded to the type of `values`; NaN stays."""
    return np.clip(values.astype(np.float64), -limit, limit).astype(values.dtype)


def toward_sign(values: np.ndarray, rate: float) -> np.ndarray:
    """x' = x * (1 - a) + a * sign(x), computed in float64 and rounded to the type of `values`."""
    wide = values.astype(np.float64)
    return (wide * (1 - rate) + rate * np.sign(wide)).astype(values.dtype)
