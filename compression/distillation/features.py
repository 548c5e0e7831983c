"""Values inside a model that can be compared with another's: what each layer gives after its activation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compression import runtime
from compression.errors import NotApplicable
from compression.graph import layers
from compression.graph.operators import DEFAULT_DOMAINS
from compression.method import StepContext

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv"})
FOLLOWERS = frozenset(
    {
        *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"),
        *("RMSNormalization", "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Swish"),
        *("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign", "ThresholdedRelu", "Clip"),
    }
)
"""They go with the layer before them, where nothing else reads its output."""
NEAR = 3
"""How many names a hint lists."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a layer gives. `shape` is one sample's; `channel_axis` counts the batch axis too."""

    layer: str
    value: str
    shape: tuple[int, ...]
    channel_axis: int

    @property
    def channels(self) -> int:
        return self.shape[self.channel_axis - 1]

    @property
    def positions(self) -> tuple[int, ...]:
        """The sizes of all other axes."""
        return tuple(size for axis, size in enumerate(self.shape, start=1) if axis != self.channel_axis)


def find_features(
    model: ir.Model, feeds: Mapping[str, np.ndarray], rows: int, context: StepContext
) -> tuple[Feature, ...]:
    """The features of a model in graph order, their shapes seen on a batch of `rows` samples.

    Left out are outputs of the model, and values whose first axis does not count samples.
    """
    given = {layer.name: value for layer in layers(model) if (value := _given(layer.node)) is not None}
    inside = {name: value for name, value in given.items() if value.graph is model.graph and value.name}
    shapes = measured_shapes(model, [value.name or "" for value in inside.values()], feeds, context)
    ops = {layer.name: layer.node.op_type for layer in layers(model)}
    found = []
    for name, value in inside.items():
        shape = shapes.get(value.name or "", ())
        if len(shape) >= 2 and shape[0] == rows:
            axis = 1 if ops[name] in CONVOLUTIONS else len(shape) - 1
            found.append(Feature(layer=name, value=value.name or "", shape=shape[1:], channel_axis=axis))
    return tuple(found)


def find_value(
    model: ir.Model, name: str, found: Sequence[Feature], shapes: Mapping[str, tuple[int, ...]], *, where: str
) -> Feature:
    """The feature of a layer, or any value of the main graph, by its name.

    Raises:
        NotApplicable: there is no such layer or value, or its first axis does not count samples.
    """
    for feature in found:
        if feature.layer == name:
            return feature
    shape = shapes.get(name, ())
    if len(shape) >= 2:
        values = {value.name: value for node in model.graph for value in node.outputs}
        producer = values[name].producer() if name in values else None
        axis = 1 if len(shape) == 4 or (producer and producer.op_type in CONVOLUTIONS) else len(shape) - 1
        return Feature(layer=name, value=name, shape=shape[1:], channel_axis=axis)
    near = ", ".join(feature.layer for feature in found[:NEAR]) or "none"
    raise NotApplicable(
        f"{name!r} is no layer or value with one entry per sample", where=where, hint=f"layers: {near}, ..."
    )


def measured_shapes(
    model: ir.Model, values: Sequence[str], feeds: Mapping[str, np.ndarray], context: StepContext
) -> dict[str, tuple[int, ...]]:
    """Shapes of values in between, batch axis included, in one inference; of float tensors only."""
    wanted = [name for name in values if name]
    session = runtime.open_session(
        model, device="cpu", threads=context.threads, outputs=wanted, optimize=False
    )
    return {
        name: array.shape
        for name, array in runtime.run(session, feeds).items()
        if name in wanted and isinstance(array, np.ndarray) and array.dtype.kind == "f"
    }


def _given(node: ir.Node) -> ir.Value | None:
    """What the layer gives, past the normalizations and activations that alone read it."""
    value = node.outputs[0]
    while not value.is_graph_output():
        uses = list(value.uses())
        reader = uses[0].node if len(uses) == 1 and uses[0].idx == 0 else None
        if reader is None or reader.op_type not in FOLLOWERS or reader.domain not in DEFAULT_DOMAINS:
            return value
        value = reader.outputs[0]
    return None
