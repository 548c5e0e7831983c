"""prune_magnitude: the smallest weights become zero."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from compression.magnitude import Cut, smallest
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
from compression.pruning.zeros import ZEROS_ONLY, count_zeros, merged, notes_on, zeroed
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.weight_targets import (
    OP_TYPES,
    Target,
    find_targets,
    put,
    reduction_axis,
    streaming_memory,
    target_weights,
)

if TYPE_CHECKING:
    import onnx_ir as ir


class PruneMagnitude(Method):
    """Sets weights to zero by magnitude: a share of them, all below a threshold, or N of every M.

    Kernels and matrices are pruned; biases and normalization parameters stay. A weight that several
    layers share is pruned once. Zeros that are there already count towards the target.
    """

    title: ClassVar[str] = "Set the smallest weights to zero"
    source: ClassVar[str] = (
        "Han et al. 2015, Learning both weights and connections (arXiv:1506.02626), section 3: w' = 0 where "
        "|w| < tau, else w; N:M patterns after Mishra et al. 2021 (arXiv:2104.08378)"
    )
    changes: ClassVar[tuple[Change, ...]] = ("values",)
    op_types: ClassVar[frozenset[str] | None] = OP_TYPES
    example: ClassVar[Mapping[str, Any]] = {"method": "prune_magnitude", "sparsity": 0.5, "scope": "layer"}

    method: Literal["prune_magnitude"] = "prune_magnitude"
    sparsity: float | None = Field(
        None, gt=0, lt=1, description="share of weights that are zero afterwards; exact to one weight"
    )
    threshold: float | None = Field(
        None, gt=0, le=1e6, description="tau: every weight with |w| < tau becomes zero, in all layers alike"
    )
    pattern: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]?:[1-9][0-9]?$",
        description="N:M such as `2:4`: of every M neighbours along the input axis, the N largest stay",
    )
    scope: Literal["global", "layer"] = Field(
        "global", description="with `sparsity`: one cut through all layers together, or one in each layer"
    )

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        given = [name for name in ("sparsity", "threshold", "pattern") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of sparsity, threshold and pattern; given: {', '.join(given) or 'none'}"
            )
        if self.pattern is not None and self.kept_of[0] >= self.kept_of[1]:
            raise ValueError(f"in the pattern {self.pattern!r} N must be smaller than M")
        return self

    @property
    def kept_of(self) -> tuple[int, int]:
        """N and M of the pattern."""
        kept, of = (self.pattern or "0:0").split(":")
        return int(kept), int(of)

    def unfit(self, layer: LayerSummary) -> str | None:
        reason = super().unfit(layer)
        if reason is None and not target_weights(layer):
            return "has one-dimensional weights only, which are not pruned"
        return reason

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        forecast = super().forecast(model, data, models)
        warning = Problem(
            code="zeros_only", message=ZEROS_ONLY, hint="follow it with finetuning or quantization"
        )
        return forecast.model_copy(
            update={"warnings": (*forecast.warnings, warning), "peak_memory_bytes": streaming_memory(model)}
        )

    def after(self, layer: LayerSummary) -> LayerSummary:
        """Zeros at the target share; how a global cut spreads them over layers is not known beforehand."""
        share = self.sparsity or 0.0
        if self.pattern is not None:
            share = 1 - self.kept_of[0] / self.kept_of[1]
        targets = {weight.name for weight in target_weights(layer)}
        weights = tuple(
            weight.model_copy(update={"zeros": max(weight.zeros, round(share * weight.elements))})
            if weight.name in targets
            else weight
            for weight in layer.weights
        )
        return layer.model_copy(update={"weights": weights})

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import layers, select

        chosen = select(model, self)
        targets, kept = find_targets(chosen, layers(model))
        context.report(0.0, "finding the smallest weights")
        cuts = self._cuts(targets)
        outcomes: dict[str, LayerOutcome] = {
            name: LayerOutcome(layer=name, changed=False, note=reason) for name, reason in kept.items()
        }
        zeros = 0
        for index, target in enumerate(targets):
            note = self._prune(target, index, cuts)
            count, numbers = count_zeros(target)
            zeros += count
            for layer in target.layers:
                outcomes[layer.name] = merged(outcomes.get(layer.name), layer.name, note, numbers)
            context.report((index + 1) / len(targets), f"pruned {target.layers[0].name}")
        total = sum(target.size for target in targets)
        share = zeros / max(total, 1)
        return StepOutcome(
            model=model,
            layers=tuple(outcomes[layer.name] for layer in chosen if layer.name in outcomes),
            notes=notes_on(zeros, total, outcomes),
            details={"zeros": zeros, "weights": total, "sparsity": share, "density": 1 - share},
        )

    def _cuts(self, targets: Sequence[Target]) -> Sequence[tuple[Cut, int]]:
        """For each target its cut, and its number among the tensors of that cut."""
        if self.sparsity is None:
            return ()
        if self.scope == "layer":
            return [
                (smallest([target.pieces], round(self.sparsity * target.size), wide=target.is_wide), 0)
                for target in targets
            ]
        count = round(self.sparsity * sum(target.size for target in targets))
        wide = any(target.is_wide for target in targets)
        cut = smallest([target.pieces for target in targets], count, wide=wide)
        return [(cut, index) for index in range(len(targets))]

    def _prune(self, target: Target, index: int, cuts: Sequence[tuple[Cut, int]]) -> str | None:
        """Prunes one tensor; the reason where it stays as it is."""
        if self.pattern is not None:
            return self._prune_pattern(target)
        if self.threshold is not None:
            tau = self.threshold
            put(target, lambda values: zeroed(values, np.abs(values.astype(np.float64)) < tau))
            return None
        cut, number = cuts[index]
        put(target, lambda values: zeroed(values, cut.mask(values, number)))
        return None

    def _prune_pattern(self, target: Target) -> str | None:
        kept, of = self.kept_of
        axis = reduction_axis(target.layers[0], target.value)
        if axis is None:
            return "its weight is reshaped before it is used: no input axis to group along"
        size = target.shape[axis]
        if size % of:
            return f"its input axis of {size} is no multiple of {of}"
        put(target, lambda values: zeroed(values, pattern_mask(values, axis, kept, of)))
        return None


def pattern_mask(values: np.ndarray, axis: int, kept: int, of: int) -> np.ndarray:
    """True at the `of - kept` smallest of every `of` neighbours on `axis`; of equals the earlier goes."""
    moved = np.moveaxis(values, axis, -1)
    groups = np.abs(moved.reshape(-1, of).astype(np.float64))
    order = np.argsort(groups, axis=1, kind="stable")
    mask = np.zeros(groups.shape, bool)
    np.put_along_axis(mask, order[:, : of - kept], True, axis=1)
    return np.moveaxis(mask.reshape(moved.shape), -1, axis)
