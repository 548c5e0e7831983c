"""prune_channels: whole channels, neurons and heads leave, and shapes shrink."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compression.channel_pruning.wish import NEEDS_GRADIENTS, READS_DATA, Budget, Criterion, Scope, Wish
from compression.distillation.forecast import derived_summary
from compression.distillation.settings import Derive
from compression.method import NO_MODELS, Change, Forecast, Method, Problem, Role, StepContext, StepOutcome
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.training.forecast import obstacle_problems, training_memory, training_seconds

if TYPE_CHECKING:
    import onnx_ir as ir


class PruneChannels(Method):
    """Takes whole units out of the graph: filters with what depends on them, neurons, hidden units, attention heads.

    Units that depend on each other through residual additions, concatenations, grouped convolutions, normalization
    or reshapes form a group and leave together; weights, shapes and constants shrink, so that any runtime is faster.
    Groups stay whole, and are listed with the reason, where the model gives their outputs away, where they pass
    through operators without a rule, and where a layer that is not selected would shrink. Each cut is proven: the
    original with the same units silent and the result must agree.

    Scores of weights are relative to the mean of their tensor, those from data to the mean over all units: 1 is
    average. `finetune` wins back what a cut costs. After unstructured pruning `criterion: paths` with a tiny threshold
    and `round_to: 1` takes out what it left unconnected.
    """

    version: ClassVar[int] = 2
    title: ClassVar[str] = "Take out whole channels, neurons and heads, so that shapes shrink"
    source: ClassVar[str] = (
        "Li et al. 2017 (arXiv:1608.08710), l1; He et al. 2019 (arXiv:1811.00250), geometric median; Liu et al. 2017 "
        "(arXiv:1708.06519), bn_scale; Molchanov et al. 2017 (arXiv:1611.06440), equation 7, taylor; Luo and Wu 2017 "
        "(arXiv:1706.05791), entropy; Fang et al. 2023 (arXiv:2301.12900), dependency groups and norms over them"
    )
    uses: ClassVar[frozenset[Role]] = frozenset({Role.CALIBRATION, Role.TRAINING})
    changes: ClassVar[tuple[Change, ...]] = ("values", "structure")
    example: ClassVar[Mapping[str, Any]] = {"method": "prune_channels", "sparsity": 0.5, "criterion": "l2"}

    method: Literal["prune_channels"] = "prune_channels"
    criterion: Criterion = Field(
        "l2",
        description="what tells units that matter: the norm of the weights that make and read them (l1, l2), the "
        "distance to the other units (geometric_median), what flows through them (paths: the norm of what makes a "
        "unit times that of what reads it, 0 where earlier pruning cut a unit off), the normalization's scale "
        "(bn_scale), the change of the loss to first order by all their weights (taylor), the entropy of their "
        "activation over data (entropy), how far the outputs move without them, tried one by one (stability), or "
        "chance (random)",
    )
    sparsity: float | None = Field(None, gt=0, lt=1, description="share of the units that leaves")
    threshold: float | None = Field(
        None, gt=0, le=1e6, description="units with a lower score leave; 1 is the average score"
    )
    budget: Budget | None = Field(
        None, description="as much leaves as it takes for this share of MACs, size or latency to be left"
    )
    scope: Scope = Field(
        "layer",
        description="the same share of each group, or one ranking of all units together (`global`)",
    )
    max_sparsity: float = Field(
        0.9, gt=0, lt=1, description="no group loses a larger share, unless `sparsity` is larger"
    )
    round_to: int = Field(
        8,
        ge=1,
        le=256,
        description="counts that stay are multiples of it, since kernels work on blocks; groups of under four times "
        "as many units are rounded more finely",
    )
    widths: bool = Field(
        False,
        description="also cut units that LayerNormalization or a mean runs over, such as the width of a transformer: "
        "their statistics change with that, and finetuning is needed",
    )
    max_samples: int = Field(
        256, ge=1, le=1_000_000, description="samples that taylor and entropy look at, at most"
    )

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        given = [name for name in ("sparsity", "threshold", "budget") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of sparsity, threshold and budget; given: {', '.join(given) or 'none'}"
            )
        return self

    def unfit(self, layer: LayerSummary) -> str | None:
        """Also quantized layers have channels."""
        if not any(len(weight.shape) > 1 for weight in layer.weights):
            return "has no kernel or matrix whose outputs could leave"
        return None

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        forecast = super().forecast(model, data, models)
        kept = (layer.name for layer in model.layers if layer.name not in forecast.layers)
        after = derived_summary(model, Derive(width=self._share_left), kept)
        memory = 3 * model.size_bytes + 250_000_000
        if self.criterion in NEEDS_GRADIENTS:
            memory = max(memory, training_memory(model, 32))
        return forecast.model_copy(
            update={
                "model_after": after,
                "problems": (*forecast.problems, *self._missing(model, data)),
                "peak_memory_bytes": memory,
            }
        )

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        inference = 0.001 + (model.macs or model.parameters) / 5e9
        found = 3.0 + 0.02 * len(model.layers) + model.weight_bytes / 50e6
        if self.criterion == "taylor":
            found += training_seconds(model, self.max_samples, 1, 32)
        if self.criterion == "entropy":
            found += self.max_samples * inference
        if self.criterion == "stability":
            units = sum(layer.weight.shape[0] for layer in model.layers if len(layer.weight.shape) > 1)
            found += 16 * units * inference
        return found + (20.0 if self.budget is not None and self.budget.latency is not None else 0.0)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.channel_pruning.run import prune
        from compression.graph import select

        wish = Wish(**{name: getattr(self, name) for name in Wish.__dataclass_fields__})
        return prune(model, select(model, self), wish, context)

    @property
    def _share_left(self) -> float:
        """Of the units, about."""
        if self.budget is not None:
            shares = [self.budget.macs, self.budget.size, self.budget.latency]
            return float(min(share for share in shares if share is not None) ** 0.5)
        return 1 - (self.sparsity or 0.3)

    def _missing(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        if self.criterion not in READS_DATA:
            return ()
        found = [] if self.criterion not in NEEDS_GRADIENTS else [*obstacle_problems(self.method, model)]
        if Role.TRAINING not in data and Role.CALIBRATION not in data:
            found.append(
                Problem(
                    code="data_missing",
                    message=f"the criterion {self.criterion} looks at data and the job names none",
                    where="data.calibration",
                    hint='upload a dataset and give its id as "data": {"calibration": "dst_..."}, or take l1 or l2',
                )
            )
        return tuple(found)
