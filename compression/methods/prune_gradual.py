"""prune_gradual: prune and retrain in rounds until the target."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compression.method import NO_MODELS, Forecast, OtherModel, Problem, Role, StepContext, StepOutcome
from compression.pruning.zeros import ZEROS_ONLY
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.training.settings import GuidedMethod
from compression.weight_targets import OP_TYPES, target_weights

if TYPE_CHECKING:
    import onnx_ir as ir


class PruneGradual(GuidedMethod):
    """Sets more weights to zero in every round and trains on in between, so that the rest takes over.

    Kernels and matrices are pruned; everything that is selected trains, and zeros stay zeros. All rounds share one
    schedule of the learning rate, or each goes through it anew (`rewind: learning_rate`). With `rewind: weights` the
    weights that stay go back after each cut: to those of an uploaded initial checkpoint (the lottery ticket), or to
    those that the step found. Of the last training the best epoch on the validation split is kept. Convolutions of a
    deep network into which BatchNormalization was folded have it back while they train (not with `initial`, which has
    none to go back to).
    """

    title: ClassVar[str] = "Prune and retrain in rounds, with rewinding where asked for"
    source: ClassVar[str] = (
        "Zhu and Gupta 2017 (arXiv:1710.01878), equation 1; Han et al. 2015 (arXiv:1506.02626), iterative pruning; "
        "Frankle and Carbin 2019 (arXiv:1803.03635), the lottery ticket; Renda et al. 2020 (arXiv:2003.02389), "
        "learning rate rewinding; taylor: Molchanov et al. 2019 (arXiv:1906.10771), equation 8; lamp: Lee et al. 2021 "
        "(arXiv:2010.07611); alpha: Hinton et al. 2015 (arXiv:1503.02531)"
    )
    version: ClassVar[int] = 2
    op_types: ClassVar[frozenset[str] | None] = None
    example: ClassVar[Mapping[str, Any]] = {
        "method": "prune_gradual",
        "sparsity": 0.8,
        "rounds": 3,
        "epochs": 1,
        "final_epochs": 2,
    }

    method: Literal["prune_gradual"] = "prune_gradual"
    sparsity: float = Field(gt=0, lt=1, description="share of weights that are zero afterwards; exact to one")
    criterion: Literal["magnitude", "lamp", "random", "gradient", "snip", "taylor"] = Field(
        "taylor",
        description="which weights leave first: those that the loss owes little to (|g|, |w g| or (w g)^2 with the "
        "gradient g), of which taylor stands it best that layers differ in scale, and that weights are cut off from "
        "the output; small ones, which may empty a whole layer; small ones beside the larger ones of their layer "
        "(lamp); or any",
    )
    scope: Literal["global", "layer"] = Field(
        "global", description="one cut through all layers together, or one in each layer"
    )
    rounds: int = Field(5, ge=1, le=1000, description="how often is cut")
    ramp: Literal["linear", "cubic"] = Field(
        "cubic", description="how the sparsity grows over the rounds; cubic cuts most at first"
    )
    epochs: int = Field(2, ge=1, le=10_000, description="passes over the training data after each cut")
    final_epochs: int = Field(5, ge=0, le=10_000, description="further passes after the last cut")
    rewind: Literal["none", "weights", "learning_rate"] = Field(
        "none", description="what goes back to its beginning after each cut"
    )
    initial: OtherModel | None = Field(
        None,
        description="id of an uploaded model with the weights that `rewind: weights` goes back to; null takes "
        "those that the step finds",
    )

    @model_validator(mode="after")
    def _initial_is_for_rewinding(self) -> Self:
        if self.initial is not None and self.rewind != "weights":
            raise ValueError("initial belongs to rewind: weights")
        return self

    @property
    def epochs_in_all(self) -> float:
        return float(self.rounds * self.epochs + self.final_epochs)

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        forecast = super().forecast(model, data, models)
        warning = Problem(code="zeros_only", message=ZEROS_ONLY, hint="follow it with quantization")
        return forecast.model_copy(
            update={
                "problems": (*forecast.problems, *self._differences(model, models)),
                "warnings": (*forecast.warnings, warning),
            }
        )

    def after(self, layer: LayerSummary) -> LayerSummary:
        """Zeros at the target share; how a global cut spreads them over layers is not known beforehand."""
        targets = {weight.name for weight in target_weights(layer)} if layer.op_type in OP_TYPES else set()
        weights = tuple(
            weight.model_copy(update={"zeros": max(weight.zeros, round(self.sparsity * weight.elements))})
            if weight.name in targets
            else weight
            for weight in layer.weights
        )
        return layer.model_copy(update={"weights": weights})

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.pruning.gradual import Wish, prune_gradually
        from compression.training.run import repeatable

        wish = Wish(**{name: getattr(self, name) for name in Wish.__dataclass_fields__})
        with repeatable(context):
            return prune_gradually(model, self, wish, context)

    def _differences(self, model: ModelSummary, models: Mapping[str, ModelSummary]) -> Iterator[Problem]:
        """Where the initial model is another network."""
        if self.initial is None or self.initial not in models:
            return
        theirs = {
            weight.name: weight.shape for layer in models[self.initial].layers for weight in layer.weights
        }
        for layer in model.layers:
            for weight in layer.weights:
                if weight.is_float and theirs.get(weight.name) != weight.shape:
                    found = list(theirs[weight.name]) if weight.name in theirs else "missing"
                    yield Problem(
                        code="not_applicable",
                        message=f"the initial model's {weight.name!r} is {found} where this model's is "
                        f"{list(weight.shape)}",
                        where="initial",
                        hint="upload the checkpoint of this very network, exported the same way",
                    )
                    return
