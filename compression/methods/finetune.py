"""finetune: training recovers what earlier steps cost."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import StepContext, StepOutcome
from compression.training.settings import GuidedMethod

if TYPE_CHECKING:
    import onnx_ir as ir


class Finetune(GuidedMethod):
    """Trains the model as it is, keeping what earlier steps made: zeros, shared values, quantizers.

    Pruned weights stay zero, entries of a codebook stay equal, and through QuantizeLinear gradients pass as if
    it did not round (straight through), with its scales as they are. Convolutions of a deep network into which
    BatchNormalization was folded have it back while they train; where they are the original's but for pruned weights,
    it begins with the spread of activations that the original had. Labels decide what is learned; without them the
    original model's outputs are. Of all epochs the best on a validation split is kept, what training began with among
    them.
    """

    title: ClassVar[str] = "Recover accuracy by training, keeping zeros, shared values and quantizers"
    source: ClassVar[str] = (
        "Han et al. 2015 (arXiv:1506.02626), section 3.3, retraining with the mask; Han et al. 2016 "
        "(arXiv:1510.00149), section 3.3, trained centroids; Bengio et al. 2013 (arXiv:1308.3432), "
        "the straight-through estimator; Wu and Johnson 2021 (arXiv:2105.07576), section 3, precise statistics; "
        "Jordan et al. 2022 (arXiv:2211.08403), REPAIR; "
        "alpha: Hinton et al. 2015 (arXiv:1503.02531)"
    )
    version: ClassVar[int] = 2
    example: ClassVar[Mapping[str, Any]] = {"method": "finetune", "epochs": 3, "learning_rate": 5e-4}

    method: Literal["finetune"] = "finetune"
    keep_zeros: bool = Field(
        True, description="pruned weights stay zero, where 5 % or more of a kernel or matrix is zero"
    )
    keep_shared: bool = Field(
        True,
        description="equal values of a codebook stay equal, where a kernel has 256 distinct ones at most",
    )

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.training.constraints import preserved
        from compression.training.loop import Plan, train
        from compression.training.outcomes import finish
        from compression.training.run import prepare, repeatable

        with repeatable(context):
            training = prepare(model, self, context, restore=True)
            kept, words = preserved(model, training.view, zeros=self.keep_zeros, shared=self.keep_shared)
            record = train(
                training.view,
                training.objective,
                training.batches,
                self,
                context,
                constraints=(*kept, *training.constraints),
                plan=Plan(epochs=self.epochs, precision=training.precision),
                keeper=training.keeper,
                settle=training.settle,
            )
            told = {name: f"kept {text}" for name, text in words.items()}
            outcomes = finish(training, told)
        return StepOutcome(
            model=model,
            layers=outcomes,
            notes=(*training.notes, record.words()),
            details={"training": record.as_details()},
        )
