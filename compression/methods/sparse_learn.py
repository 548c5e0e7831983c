"""sparse_learn: training under a penalty that makes zeros."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compression.method import NO_MODELS, Forecast, Problem, Role, StepContext, StepOutcome
from compression.sparse_learning.wish import Groups, Penalty, Scope, Wish
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.training.settings import TrainingMethod
from compression.weight_targets import no_targets, target_weights

if TYPE_CHECKING:
    import onnx_ir as ir


class SparseLearn(TrainingMethod):
    """Trains on loss + strength * penalty of the kernels, by proximal steps, so that zeros are exact.

    After each optimizer step at learning rate r the weights take the proximal step of r * strength * penalty:
    L1 moves each weight to zero by r * strength and stops it there; the group lasso does so with the root mean
    square of whole units; L2 divides by 1 + r * strength, and zeros come from the final cut alone. With Adam the
    step is the same, decoupled from its scaling of gradients as AdamW's decay is. Where no strength is given it
    is found on the way: it follows the density along a cubic ramp. In place of the last step the smallest members
    are cut to the target, and `debias_epochs` train on without the penalty, the zeros fixed.

    Kernels and matrices are penalised; biases and normalization train freely. With `groups: channels` the units
    that would leave together (through residual additions, depthwise kernels, ...) become zero together, their
    biases too, so that `prune_channels` can take them out; layers whose outputs must stay are not penalised.
    """

    title: ClassVar[str] = "Train under L1, group lasso or L2, so that weights or whole channels become zero"
    source: ClassVar[str] = (
        "Parikh and Boyd 2014, Proximal Algorithms, sections 4.2 (proximal gradient) and 6.5 (soft threshold, groups); "
        "Tibshirani 1996 (L1); Yuan and Lin 2006 (group lasso); Hoerl and Kennard 1970 (L2); Loshchilov and Hutter "
        "2019 (arXiv:1711.05101), the step decoupled from Adam; Zhu and Gupta 2017 (arXiv:1710.01878), the ramp"
    )
    example: ClassVar[Mapping[str, Any]] = {
        "method": "sparse_learn",
        "penalty": "l1",
        "sparsity": 0.8,
        "epochs": 3,
        "debias_epochs": 1,
    }

    method: Literal["sparse_learn"] = "sparse_learn"
    penalty: Penalty = Field("l1", description="of single weights (l1, l2) or of whole units (group_lasso)")
    groups: Groups = Field(
        "channels",
        description="of group_lasso: channels that leave the graph together, over all kernels that make them; filters, "
        "the output channels of each kernel by itself; or inputs, its input channels",
    )
    strength: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="lambda, the penalty's weight beside the loss; null finds it for `sparsity`",
    )
    sparsity: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share that is zero afterwards, exact to one: of weights, or with group_lasso of units",
    )
    threshold: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="after training, magnitudes (of units: root mean squares) below it become zero",
    )
    scope: Scope = Field(
        "global",
        description="one strength and one cut through all layers together, or one in each layer or group",
    )
    debias_epochs: int = Field(
        5,
        ge=0,
        le=10_000,
        description="epochs after the cut, without the penalty and with the zeros fixed; the learning rate begins its "
        "schedule anew",
    )
    keep_zeros: bool = Field(
        True, description="weights that earlier steps pruned stay zero, where 5 % or more of a kernel is zero"
    )

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.strength is None and self.sparsity is None:
            raise ValueError(
                "give strength, sparsity or both: one says how hard to press, the other where to"
            )
        if self.threshold is not None and (self.sparsity is not None or self.strength is None):
            raise ValueError("threshold goes with strength, and not with sparsity, which cuts exactly")
        if self.penalty == "l2" and (self.strength is None or self.sparsity is self.threshold is None):
            raise ValueError("l2 makes no zeros of itself: give strength, and sparsity or threshold")
        if self.penalty != "group_lasso" and self.groups != "channels":
            raise ValueError(
                f"groups belongs to the penalty group_lasso; {self.penalty} is of single weights"
            )
        return self

    @property
    def epochs_in_all(self) -> float:
        return float(self.epochs + self.debias_epochs)

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        forecast = super().forecast(model, data, models)
        warning = Problem(
            code="zeros_only",
            message="zeros only: the file is not smaller until packed or cut, and dense kernels are not faster",
            hint="follow it with quantization, or group_lasso with prune_channels",
        )
        problems = (*forecast.problems, *no_targets(model, forecast.layers))
        return forecast.model_copy(update={"problems": problems, "warnings": (*forecast.warnings, warning)})

    def after(self, layer: LayerSummary) -> LayerSummary:
        """Zeros at the target share; how a global cut spreads them over layers is not known beforehand."""
        targets = {weight.name for weight in target_weights(layer)}
        share = self.sparsity or 0.0
        weights = tuple(
            weight.model_copy(update={"zeros": max(weight.zeros, round(share * weight.elements))})
            if weight.name in targets
            else weight
            for weight in layer.weights
        )
        return layer.model_copy(update={"weights": weights})

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.sparse_learning.run import learn
        from compression.training.run import repeatable

        wish = Wish(
            penalty=self.penalty,
            groups=self.groups,
            strength=self.strength,
            sparsity=self.sparsity,
            threshold=self.threshold,
            scope=self.scope,
            debias_epochs=self.debias_epochs,
            keep_zeros=self.keep_zeros,
        )
        with repeatable(context):
            return learn(model, wish, self, context)
