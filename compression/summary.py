"""What an inspection finds in a file: plain frozen values that travel as JSON.

The API never opens a model or a dataset. It stores these summaries and answers preflight from them alone.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Dim = int | str | None
"""A known size, the name of a dynamic axis, or nothing known."""


class Summary(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSummary(Summary):
    """A graph input or output. `shape` is null where even the rank is unknown."""

    name: str
    dtype: str = Field(description="numpy's name of the element type, such as float32, int64, bool, bfloat16")
    shape: tuple[Dim, ...] | None


class WeightSummary(Summary):
    """A constant tensor that a layer computes with."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    zeros: int = Field(description="elements that are exactly zero")
    finite: bool = Field(True, description="false where an element is NaN or infinite")

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def is_float(self) -> bool:
        return self.dtype in {"float16", "bfloat16", "float32", "float64"}


class LayerSummary(Summary):
    """A node that computes with weights of its own: Conv, Gemm, MatMul, LSTM, an embedding, ..."""

    name: str = Field(description="unique in the model; the exporter's node name where there is one")
    op_type: str
    scope: str = Field(
        "", description="path of the subgraph or function it stands in; empty for the main graph"
    )
    weights: tuple[WeightSummary, ...] = Field(
        description="the first is the layer's main weight, then biases"
    )
    macs: int | None = Field(description="multiply-accumulates for one sample; null where shapes are unknown")

    @property
    def weight(self) -> WeightSummary:
        return self.weights[0]

    @property
    def size_bytes(self) -> int:
        return sum(weight.size_bytes for weight in self.weights)

    @property
    def broken(self) -> str | None:
        """The first weight with NaN or infinity in it."""
        return next((weight.name for weight in self.weights if not weight.finite), None)


class Obstacle(Summary):
    """Why a model cannot be trained: an operator that has no gradient or is not known."""

    operator: str = Field(description="as `Conv`, or `com.microsoft::FusedConv` beyond the default domain")
    node: str = Field(description="the first node of that kind; empty where the whole model is meant")
    count: int = Field(ge=0, description="how many such nodes there are")
    reason: str


class Conversion(Summary):
    """How an upload of another format became the ONNX model that jobs work on."""

    tool: str = Field(description="what wrote the ONNX model")
    sha256: str = Field(description="of the ONNX model")
    size_bytes: int = Field(description="of the ONNX model")


class ModelSummary(Summary):
    """Everything that is worth knowing about a model without opening it again. Sizes in bytes."""

    kind: Literal["model"] = "model"
    format: Literal["onnx", "pt2"] = Field(
        "onnx", description="of the upload; whatever it was, the rest describes the ONNX model"
    )
    conversion: Conversion | None = Field(
        None, description="how the upload became ONNX; null where it is ONNX itself"
    )
    ir_version: int
    opset: int = Field(description="version of the default operator set as uploaded")
    domains: dict[str, int] = Field(description="other operator sets and their versions")
    producer: str
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    parameters: int = Field(description="elements of all weights, each counted once")
    nonzero_parameters: int
    size_bytes: int = Field(description="the model on disk, external data included")
    weight_bytes: int
    macs: int | None = Field(description="of one sample; null where no layer's shapes are known")
    macs_complete: bool = Field(description="false where some layers' shapes are unknown and not counted")
    operators: dict[str, int] = Field(
        description="how many nodes of each kind, subgraphs and functions included; those beyond ONNX's "
        "default operator set as `domain::Operator`"
    )
    layers: tuple[LayerSummary, ...]
    subgraphs: int = Field(description="bodies of If, Loop and Scan")
    functions: int = Field(description="model-local functions")
    quantized: bool = Field(description="has integer kernels or QuantizeLinear/DequantizeLinear inside")
    external_data: bool
    obstacles: tuple[Obstacle, ...] = Field((), description="what keeps the model from being trained")
    warnings: tuple[str, ...] = ()

    def layer(self, name: str) -> LayerSummary:
        return next(layer for layer in self.layers if layer.name == name)

    def with_layers(self, changed: Iterable[LayerSummary]) -> "ModelSummary":
        """The same model with some layers replaced by name, its sums brought up to date.

        A weight that layers share is counted once, and has changed only where all of them have.
        """
        by_name = {layer.name: layer for layer in changed}
        layers = tuple(by_name.get(layer.name, layer) for layer in self.layers)
        size, zeros = _sums(layers)
        size_before, zeros_before = _sums(self.layers)
        delta = size - size_before
        return self.model_copy(
            update={
                "layers": layers,
                "size_bytes": max(self.size_bytes + delta, 0),
                "weight_bytes": max(self.weight_bytes + delta, 0),
                "nonzero_parameters": self.nonzero_parameters - (zeros - zeros_before),
            }
        )


def _sums(layers: Iterable[LayerSummary]) -> tuple[int, int]:
    """Bytes and zeros of all weights; names of weights are unique in a model."""
    sizes: dict[str, int] = {}
    zeros: dict[str, int] = {}
    for weight in (weight for layer in layers for weight in layer.weights):
        sizes[weight.name] = max(weight.size_bytes, sizes.get(weight.name, 0))
        zeros[weight.name] = min(weight.zeros, zeros.get(weight.name, weight.zeros))
    return sum(sizes.values()), sum(zeros.values())


class ArraySummary(Summary):
    """One array of a dataset; the first axis counts samples."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    ragged: bool = Field(False, description="samples differ in shape; `shape` then holds the largest sizes")


class DatasetSummary(Summary):
    """What a dataset file holds. `labels` is the array of that name, where there is one."""

    kind: Literal["dataset"] = "dataset"
    format: Literal["npz", "npy_folders", "safetensors", "parquet", "images"]
    samples: int
    size_bytes: int
    arrays: tuple[ArraySummary, ...]
    classes: tuple[str, ...] | None = Field(None, description="folder names of an image set, in label order")
    warnings: tuple[str, ...] = ()

    def array(self, name: str) -> ArraySummary | None:
        return next((array for array in self.arrays if array.name == name), None)

    @property
    def labelled(self) -> bool:
        return self.array("labels") is not None
