"""train_sparse_autoencoder: a sparse code for the data, or for what a layer gives."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compression.autoencoder.layout import Unit
from compression.autoencoder.wish import DEFAULT_WIDTH, Sparsity, Wish
from compression.method import NO_MODELS, Change, Forecast, Problem, Role, StepContext, StepOutcome
from compression.selector import LayerSelector
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.training.settings import LearningMethod

if TYPE_CHECKING:
    import onnx_ir as ir

MACS_PER_SECOND = 10e9
STEP_SECONDS = 1.5e-3
MEMORY_BYTES = 900_000_000
"""torch, onnxruntime, and held-out samples."""
COPIES = 8
"""Of the autoencoder's weights: those that train, gradients, Adam's moments, the best, the files."""


class TrainSparseAutoencoder(LearningMethod):
    """Learns an encoder and a decoder of which few units are active at once; the model passes through unchanged.

    What is encoded is an array of the training data, or the activations of a layer on it (with the normalization and
    activation that follow it). Rows are whole samples, or the positions of a map or a sequence, standardised by the
    mean of each feature and one scale. `topk` keeps the k largest units of a linear code; `l1` adds the mean activation
    of rectified units, each of whose atoms has length one at most; `kl` adds the divergence of sigmoid units' mean
    activity from a target. `encoder.onnx` takes samples as they are and gives codes, `decoder.onnx` the way back; both
    take any number of samples. What is measured is measured on these files, on held-out samples.
    """

    title: ClassVar[str] = "Learn a sparse code of data or activations, as an encoder and a decoder in ONNX"
    source: ClassVar[str] = (
        "Makhzani and Frey 2014, k-Sparse autoencoders (arXiv:1312.5663), algorithm 1; Ng, CS294A lecture notes on "
        "sparse autoencoders, section 3 (KL); Ranzato et al. 2007 and Lee et al. 2007 (L1 with "
        "bounded atoms)"
    )
    changes: ClassVar[tuple[Change, ...]] = ()
    example: ClassVar[Mapping[str, Any]] = {
        "method": "train_sparse_autoencoder",
        "sparsity": "topk",
        "hidden": 32,
        "active": 4,
        "epochs": 5,
    }

    method: Literal["train_sparse_autoencoder"] = "train_sparse_autoencoder"
    array: str | None = Field(
        None, min_length=1, max_length=500, description="encode this array of the training data"
    )
    layer: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="encode what this layer gives; with neither `array` nor `layer`, the last selected layer whose "
        "values are no output of the model",
    )
    unit: Unit = Field(
        "auto",
        description="what is one row: a whole sample, or a position of a map or sequence with its channels as "
        "features; auto takes positions where there are several",
    )
    sparsity: Sparsity = Field("topk", description="what keeps codes sparse")
    hidden: int | None = Field(
        None, ge=2, le=65_536, description="units of a code; null takes twice the features"
    )
    active: int | None = Field(
        None, ge=1, le=65_536, description="of topk: units that stay; null takes one in twenty"
    )
    weight: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="of the penalty l1 or kl, beside the mean squared error of standardised features",
    )
    target: float = Field(0.05, gt=0, lt=1, description="of kl: the mean activity that units are held to")
    tied: bool = Field(False, description="whether the decoder is the encoder's transpose while they learn")
    held_out: float = Field(
        0.1, gt=0, le=0.5, description="share of the samples that are not learned from but measured on"
    )
    batch_size: int = Field(256, ge=1, le=65_536, description="rows per optimizer step")
    validation: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="share of the rows that is not learned from but decides which epoch's weights are kept; 0 keeps "
        "the last",
    )

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.array is not None and (self.layer is not None or self.layers != LayerSelector()):
            raise ValueError(
                "give array, or a layer or selected layers: an array comes from the data, not from a layer"
            )
        if self.active is not None and self.sparsity != "topk":
            raise ValueError(
                f"active belongs to the sparsity topk; {self.sparsity} has weight to set its activity"
            )
        if self.active is not None and self.hidden is not None and self.active > self.hidden:
            raise ValueError(f"{self.active} active units of {self.hidden} hidden ones are not there")
        return self

    def unfit(self, layer: LayerSummary) -> str | None:
        """Any layer gives something."""
        return None

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        features, _ = self._sizes(model, data)
        weights = 2 * features * (self.hidden or DEFAULT_WIDTH * features)
        memory = MEMORY_BYTES + 3 * model.size_bytes + 4 * COPIES * weights
        if self.array is not None:
            return Forecast(
                model_after=model,
                problems=(*self.data_problems(data), *self._array_problems(data)),
                peak_memory_bytes=memory,
                seconds=self.seconds(model, data),
            )
        forecast = super().forecast(model, data, models)
        if self.layer is None:
            return forecast.model_copy(update={"peak_memory_bytes": memory})
        problems = tuple(self._layer_problems(model, forecast.layers))
        return forecast.model_copy(
            update={
                "layers": () if problems else (self.layer,),
                "problems": (*forecast.problems, *problems),
                "peak_memory_bytes": memory,
            }
        )

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        """One pass of the model where activations are taken, then three products' worth for each row and epoch."""
        samples = data[Role.TRAINING].samples if Role.TRAINING in data else 1000
        features, rows = self._sizes(model, data)
        gathering = 0.0 if self.array else samples * (model.macs or model.parameters) / MACS_PER_SECOND
        macs = 6 * features * (self.hidden or DEFAULT_WIDTH * features)
        steps = self.epochs * -(-rows // self.batch_size)
        return 3.0 + gathering + self.epochs * rows * macs / MACS_PER_SECOND + steps * STEP_SECONDS

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.autoencoder.run import learn_code
        from compression.graph import select
        from compression.training.run import repeatable

        wish = Wish(
            array=self.array,
            layer=self.layer,
            unit=self.unit,
            sparsity=self.sparsity,
            hidden=self.hidden,
            active=self.active,
            weight=self.weight,
            target=self.target,
            tied=self.tied,
            held_out=self.held_out,
        )
        chosen = [] if self.array else [layer.name for layer in select(model, self)]
        with repeatable(context):
            return learn_code(model, wish, self, chosen, context)

    def _sizes(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> tuple[int, int]:
        """Features and rows, about: a layer has as many features as its weight's first axis is long."""
        training = data.get(Role.TRAINING)
        samples = training.samples if training is not None else 1000
        array = training.array(self.array) if training is not None and self.array else None
        if array is not None:
            whole = self.unit == "sample" or len(array.shape) < 3
            features = prod(array.shape[1:]) if whole else array.shape[-1]
            return max(features, 1), samples * prod(array.shape[1:]) // max(features, 1)
        layers = [layer for layer in model.layers if layer.weights and self.layer in (None, layer.name)]
        if not layers:
            return 1, samples
        largest = max(layers, key=lambda layer: (layer.weight.shape or (1,))[0])
        positions = (largest.macs or 0) // max(largest.weight.elements, 1)
        return (largest.weight.shape or (1,))[0], samples * max(positions, 1)

    def _array_problems(self, data: Mapping[Role, DatasetSummary]) -> Iterator[Problem]:
        training = data.get(Role.TRAINING)
        if training is None or training.array(self.array or "") is not None:
            return
        yield Problem(
            code="not_applicable",
            message=f"the training data has no array {self.array!r}",
            where="array",
            hint=f"arrays: {', '.join(array.name for array in training.arrays)}",
        )

    def _layer_problems(self, model: ModelSummary, selected: tuple[str, ...]) -> Iterator[Problem]:
        if self.layer in selected:
            return
        there = any(layer.name == self.layer for layer in model.layers)
        yield Problem(
            code="not_applicable",
            message=f"the layer {self.layer!r} is {'not selected' if there else 'not in the model'}",
            where="layer",
            hint=f"layers: {', '.join(selected[:8])}",
        )
