"""share_weights: weights of a layer share the values of a codebook, which may be trained."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compression.method import (
    NO_MODELS,
    Change,
    Forecast,
    Method,
    Problem,
    Role,
    StepContext,
    StepOutcome,
)
from compression.quantization.method import NarrowingMethod
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.training.settings import TrainingMethod
from compression.weight_targets import OP_TYPES

if TYPE_CHECKING:
    import onnx_ir as ir


class ShareWeights(NarrowingMethod, TrainingMethod):
    """Stores each layer's weights as indices into a codebook of shared values, found by k-means.

    With `epochs` the shared values are then trained: each moves by the mean gradient of all weights that share it.
    Pruned zeros stay zeros and are one of the values. The runtime turns indices into floats as it loads, so that the
    file shrinks and nothing gets faster. Indices of rare values are what `pack` codes in fewer bits still.
    """

    title: ClassVar[str] = "Share weights by k-means codebooks, trained where asked for"
    source: ClassVar[str] = (
        "Han et al. 2016, Deep Compression (arXiv:1510.00149), section 3: k-means, initialisation, trained centroids; "
        "vectors: Gong et al. 2014 (arXiv:1412.6115), product quantization; rate: Chou, Lookabaugh and Gray 1989, "
        "entropy-constrained k-means"
    )
    op_types: ClassVar[frozenset[str] | None] = OP_TYPES
    needs: ClassVar[frozenset[Role]] = frozenset()
    uses: ClassVar[frozenset[Role]] = frozenset({Role.TRAINING, Role.CALIBRATION})
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes", "structure")
    example: ClassVar[Mapping[str, Any]] = {"method": "share_weights", "entries": 16, "indices": "bytes"}

    method: Literal["share_weights"] = "share_weights"
    entries: int = Field(32, ge=2, le=256, description="shared values of a layer, or of each group")
    initial: Literal["linear", "density", "random"] = Field(
        "linear",
        description="where k-means begins: evenly spaced from the lowest to the highest weight, which keeps large "
        "weights apart; evenly over ranks; or at random weights",
    )
    vector: int = Field(
        1,
        ge=1,
        le=16,
        description="weights that one index stands for together (product quantization, begun by k-means++); only "
        "vectors that are all zeros stay zeros then",
    )
    group: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="output channels that have a codebook together; null: the whole layer",
    )
    keep_zeros: bool = Field(True, description="zeros stay zeros, as one of the shared values")
    rate: float = Field(
        0.0,
        ge=0,
        le=1,
        description="squared error that one bit of an index is worth, as a share of the weights' mean square; above 0 "
        "rare values must earn their bits, so that fewer, unevenly used ones remain and more weights become zero, "
        "for `pack` to code in fewer bits",
    )
    biases: bool = Field(
        False, description="biases of the layers are shared too, each in a codebook of its own"
    )
    indices: Literal["bits", "bytes"] = Field(
        "bits",
        description="`bits` packs indices tightly, for the smallest ONNX file; `bytes` gives each one a byte, which "
        "a following `pack` compresses better",
    )
    epochs: int = Field(
        0,
        ge=0,
        le=10_000,
        description="passes over the training data in which the shared values learn; 0 for none",
    )

    @model_validator(mode="after")
    def _vectors_begin_by_themselves(self) -> Self:
        if self.vector > 1 and "initial" in self.model_fields_set:
            raise ValueError("initial is for single weights; with vector above 1 k-means++ begins")
        if self.vector > 1 and self.rate:
            raise ValueError("rate is for single weights; leave vector at 1")
        return self

    def unfit(self, layer: LayerSummary) -> str | None:
        return Method.unfit(self, layer)

    def data_problems(self, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        problems = super().data_problems(data)
        if not self.epochs or Role.TRAINING in data:
            return problems
        missing = Problem(
            code="data_missing",
            message="share_weights with epochs needs training data and the job names none",
            where="data.training",
            hint='upload a dataset and give its id as "data": {"training": "dst_..."}, or leave epochs at 0',
        )
        return (*problems, missing)

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        if self.epochs:
            return super().forecast(model, data, models)
        return Method.forecast(self, model, data, models)

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        clustering = 0.5 + model.parameters / 2e6
        return clustering + (super().seconds(model, data) if self.epochs else 0.0)

    def after(self, layer: LayerSummary) -> LayerSummary:
        from compression.quantization.forecast import shared_layer

        return shared_layer(layer, self.entries, self.indices, self.vector, self.group)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.sharing.codebook import Sharing
        from compression.sharing.run import share_weights
        from compression.training.run import repeatable

        sharing = Sharing(
            entries=self.entries,
            initial=self.initial,
            vector=self.vector,
            group=self.group,
            keep_zeros=self.keep_zeros,
            rate=self.rate,
            seed=context.seed,
        )
        with repeatable(context):
            return share_weights(
                model,
                select(model, self),
                sharing,
                context,
                indices=self.indices,
                biases=self.biases,
                training=self if self.epochs else None,
            )
