"""prune_sensitivity: weights that the loss owes little to become zero."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compression.method import NO_MODELS, Change, Forecast, Method, Problem, Role, StepContext, StepOutcome
from compression.pruning.zeros import ZEROS_ONLY
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.training.forecast import obstacle_problems, training_memory, training_seconds
from compression.weight_targets import OP_TYPES, target_weights

if TYPE_CHECKING:
    import onnx_ir as ir


class PruneSensitivity(Method):
    """Sets weights to zero by their share in the loss, to first order, averaged over batches of data.

    Kernels and matrices are pruned; biases and normalization parameters stay. Without labels the loss's place is
    taken by how far the model's outputs would move. Zeros that are there already count towards the target.
    """

    title: ClassVar[str] = "Set weights to zero that the loss owes little to"
    source: ClassVar[str] = (
        "|dL/dw| < tau; Lee et al. 2019, SNIP (arXiv:1810.02340), |w * dL/dw|; Molchanov et al. 2019 "
        "(arXiv:1906.10771), equation 8, (w * dL/dw)^2"
    )
    needs: ClassVar[frozenset[Role]] = frozenset({Role.TRAINING})
    changes: ClassVar[tuple[Change, ...]] = ("values",)
    op_types: ClassVar[frozenset[str] | None] = OP_TYPES
    example: ClassVar[Mapping[str, Any]] = {
        "method": "prune_sensitivity",
        "criterion": "taylor",
        "sparsity": 0.3,
    }

    method: Literal["prune_sensitivity"] = "prune_sensitivity"
    criterion: Literal["gradient", "snip", "taylor"] = Field(
        "taylor",
        description="of a weight w with gradient g, averaged over batches: |g| (gradient), |w g| (snip), or "
        "(w g)^2 (taylor)",
    )
    sparsity: float | None = Field(
        None, gt=0, lt=1, description="share of weights that are zero afterwards; exact to one weight"
    )
    threshold: float | None = Field(
        None, gt=0, le=1e6, description="tau: every weight with a lower score becomes zero"
    )
    scope: Literal["global", "layer"] = Field(
        "global", description="with `sparsity`: one cut through all layers together, or one in each layer"
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="samples whose loss is differentiated at once")
    max_samples: int = Field(1024, ge=1, le=10_000_000, description="samples looked at, drawn at random")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.sparsity is None) == (self.threshold is None):
            raise ValueError("give exactly one of sparsity and threshold")
        return self

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
            update={
                "problems": (*forecast.problems, *obstacle_problems(self.method, model)),
                "warnings": (*forecast.warnings, warning),
                "peak_memory_bytes": training_memory(model, self.batch_size),
            }
        )

    def after(self, layer: LayerSummary) -> LayerSummary:
        """Zeros at the target share; how a global cut spreads them over layers is not known beforehand."""
        targets = {weight.name for weight in target_weights(layer)}
        weights = tuple(
            weight.model_copy(
                update={"zeros": max(weight.zeros, round((self.sparsity or 0.0) * weight.elements))}
            )
            if weight.name in targets
            else weight
            for weight in layer.weights
        )
        return layer.model_copy(update={"weights": weights})

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        samples = data[Role.TRAINING].samples if Role.TRAINING in data else self.max_samples
        return 2.0 + training_seconds(model, min(samples, self.max_samples), 1, self.batch_size)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.pruning.sensitivity import Wish, prune
        from compression.training.run import repeatable

        wish = Wish(**{name: getattr(self, name) for name in Wish.__dataclass_fields__})
        with repeatable(context):
            return prune(model, select(model, self), wish, context)
