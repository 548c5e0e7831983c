"""entropy_penalized_training: weights learn to take few bits once they are coded."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import NO_MODELS, Forecast, Problem, Role, StepContext, StepOutcome
from compression.summary import DatasetSummary, ModelSummary
from compression.training.settings import TrainingMethod
from compression.weight_targets import no_targets

if TYPE_CHECKING:
    import onnx_ir as ir


class EntropyPenalizedTraining(TrainingMethod):
    """Trains on loss + rate * bits per weight, the bits being those that the weights take once they are entropy coded.

    Each tensor's weights lie on a uniform grid of its own throughout, and gradients pass straight through the
    rounding. The bits follow from how frequent each grid point is by now, of weights other than zero also in their
    row and column, so that rare values, most weights and in time whole units become zero by themselves. The weights
    stay floats: a following `pack` finds the grid and codes them in about the bits that the report tells. Between the
    two `prune_channels` with `criterion: paths`, a tiny threshold and `round_to: 1` takes out units that are empty.
    """

    title: ClassVar[str] = "Train weights to take few bits once they are coded"
    source: ClassVar[str] = (
        "Oktay et al. 2020, Scalable Model Compression by Entropy Penalized Reparameterization (arXiv:1906.06624); "
        "Wiedemann et al. 2019, Entropy-Constrained Training of Deep Neural Networks (arXiv:1812.07520); Chou, "
        "Lookabaugh and Gray 1989, entropy-constrained quantization; Bengio et al. 2013 (arXiv:1308.3432), the "
        "straight-through estimator"
    )
    example: ClassVar[Mapping[str, Any]] = {
        "method": "entropy_penalized_training",
        "rate": 0.1,
        "epochs": 3,
    }

    method: Literal["entropy_penalized_training"] = "entropy_penalized_training"
    rate: float = Field(
        0.1,
        gt=0,
        le=1e6,
        description="what one bit more for every weight that is put on a grid costs, in units of the loss",
    )
    step: float = Field(
        1.5,
        ge=1e-3,
        le=100,
        description="distance between a tensor's grid points, as a share of the root mean square of its weights that "
        "are not zero when the step begins; a coarse one begins with many zeros, which is where a code for them starts "
        "to pay",
    )
    biases: bool = Field(
        True, description="biases of the layers lie on their kernels' grids, and are penalised too"
    )
    keep_zeros: bool = Field(
        True, description="weights that earlier steps pruned stay zero, where 5 % or more of a kernel is zero"
    )
    validation: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of the training data that is not learned from but measured on; the last epoch's weights "
        "are kept, since earlier ones take more bits",
    )

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        forecast = super().forecast(model, data, models)
        warning = Problem(
            code="floats_only",
            message="the weights stay floats: the file is not smaller until it is packed",
            hint="follow it with pack",
        )
        problems = (*forecast.problems, *no_targets(model, forecast.layers))
        return forecast.model_copy(update={"problems": problems, "warnings": (*forecast.warnings, warning)})

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.entropy_training.run import Wish, train_by_rate
        from compression.training.run import repeatable

        wish = Wish(rate=self.rate, step=self.step, biases=self.biases, keep_zeros=self.keep_zeros)
        with repeatable(context):
            return train_by_rate(model, wish, self, context)
