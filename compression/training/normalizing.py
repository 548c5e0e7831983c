"""Puts BatchNormalization behind convolutions while a model trains, and folds it into them afterwards.

Exporters fold it away (Jacob et al. 2018, arXiv:1712.05877, section 3.2), and deep networks hardly learn without it.
Put back with its scale at the deviation and its shift at the mean of what it normalizes, it changes nothing (Ioffe and
Szegedy 2015, arXiv:1502.03167, section 3).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from compression.errors import NotTrainable
from compression.graph.absorbing import absorb_behind
from compression.graph.constants import stored_tensor
from compression.graph.naming import all_graphs, namer
from compression.graph.trainable import TrainableGraph
from compression.graph.trainable.normalization import NORMALIZATIONS
from compression.training.batches import Batches
from compression.training.constraints import shared_values
from compression.training.objectives import feed_tensors

if TYPE_CHECKING:
    from compression.graph import Layer

SAMPLES = 1024
"""Of the training data, on which means and variances are measured."""
EPSILON = 1e-5
OTHERWISE = frozenset({*(name.rpartition("::")[2] for name in NORMALIZATIONS), "Sqrt"})
"""Operators of networks with normalizations of their own; older exporters write them out, with a Sqrt."""
LEAST_LAYERS = 4
"""Networks with fewer such convolutions learn as well without."""
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
KERNELS = CONVOLUTIONS | {"Gemm", "MatMul", "LSTM", "GRU", "RNN"}

Array = npt.NDArray[np.float64]
Moments = tuple[Array, Array]
"""Mean and variance of each channel."""


@dataclass(frozen=True, kw_only=True)
class Normalizations:
    """The nodes that stand in a graph while it trains."""

    nodes: tuple[ir.Node, ...] = ()

    @property
    def weights(self) -> frozenset[str]:
        """Names of what they learn: scales and shifts."""
        return frozenset(_named(node, place) for node in self.nodes for place in (1, 2))

    @property
    def statistics(self) -> frozenset[str]:
        """Names of means and variances."""
        return frozenset(_named(node, place) for node in self.nodes for place in (3, 4))

    @torch.no_grad()
    def settle(self, view: TrainableGraph, batches: Batches) -> None:
        """Measures means and variances with the weights as they are (Wu and Johnson 2021, arXiv:2105.07576,
        section 3): running ones lag behind weights that move fast, the more so the deeper the layer."""
        if not self.nodes:
            return
        view.train()
        found = _moments(view, [_named(node, 0) for node in self.nodes], batches)
        for node in self.nodes:
            for place, values in zip((3, 4), found[_named(node, 0)], strict=True):
                view.statistics[_named(node, place)].copy_(torch.from_numpy(values))

    def fold(self, model: ir.Model) -> None:
        """Takes them out of the graph: kernels and biases are scaled and shifted, and zeros stay zeros.

        Raises:
            NotTrainable: what was learned is not finite.
        """
        names, fresh = self.weights | self.statistics, namer(model)
        for node in self.nodes:
            if not absorb_behind(node, fresh):
                raise NotTrainable("what its normalization learned is not finite", where=node.name)
        for name in names:
            del model.graph.initializers[name]

    def words(self) -> tuple[str, ...]:
        """For the report."""
        count = len(self.nodes)
        if not count:
            return ()
        those = f"{count} convolution{'s' * (count > 1)}"
        return (f"while it trained, {those} had BatchNormalization behind, which is folded in again",)


def _named(node: ir.Node, place: int) -> str:
    value = node.inputs[place]
    return "" if value is None else value.name or ""


def normalize(
    model: ir.Model,
    chosen: Sequence["Layer"],
    batches: Batches,
    device: str,
    original: ir.Model | None = None,
) -> Normalizations:
    """Inserts them in place, behind the chosen convolutions that have a bias, as folding leaves one.

    They change nothing; but where weights of the original were set to zero, scales and shifts are those of what its
    convolutions gave, so that activations have their spread again once statistics are settled (Jordan et al. 2022,
    REPAIR, arXiv:2211.08403, section 3; Saikumar and Varghese 2025, arXiv:2502.15790, on pruning).

    There is none where the network is shallow or has normalizations of its own, where other layers read the kernel
    too or its values are shared on purpose, where an output has one position per sample, and where no other layer
    follows.

    Raises:
        NotTrainable: an operator is unknown or fails.
    """
    if any(node.op_type in OTHERWISE for graph in all_graphs(model) for node in graph):
        return Normalizations()
    leading = _leading(model.graph)
    layers = [layer for layer in chosen if layer.node in leading and _is_fit(layer)]
    if len(layers) < LEAST_LAYERS:
        return Normalizations()
    view = TrainableGraph(model, device=device).eval()
    moments = _moments(view, [_output(layer).name or "" for layer in layers], batches)
    wanted = moments if original is None else moments | _before_pruning(layers, original, batches, device)
    fresh = namer(model)
    made = [
        _insert(layer, moments[name], wanted[name], fresh)
        for layer in layers
        if (name := _output(layer).name or "") in moments
    ]
    return Normalizations(nodes=tuple(made))


def _before_pruning(
    layers: Sequence["Layer"], original: ir.Model, batches: Batches, device: str
) -> dict[str, Moments]:
    """What the original's convolutions give that are the same but for weights that are zero now; nothing where no
    weight is, or where an operator is unknown that earlier steps took out."""
    theirs = {node.outputs[0].name: node for node in original.graph if node.op_type in CONVOLUTIONS}
    kernels = {
        name: (_kernel(layer.node), _kernel(theirs[name]))
        for layer in layers
        if (name := _output(layer).name or "") in theirs
    }
    same = [name for name, (ours, before) in kernels.items() if _is_pruned(ours, before)]
    if all(np.array_equal(*kernels[name]) for name in same):
        return {}
    try:
        return _moments(TrainableGraph(original, device=device).eval(), same, batches)
    except NotTrainable:
        return {}


def _kernel(node: ir.Node) -> np.ndarray:
    tensor = stored_tensor(node.inputs[1])
    return np.zeros(0) if tensor is None else np.asarray(tensor.numpy())


def _is_pruned(kernel: np.ndarray, before: np.ndarray) -> bool:
    """Whether it is what it was, but for zeros."""
    return kernel.shape == before.shape and bool(((kernel == before) | (kernel == 0)).all())


def _leading(graph: ir.Graph) -> set[ir.Node]:
    """Nodes whose outputs reach another layer of the same graph."""
    found = set[ir.Node]()
    for node in reversed(graph):
        readers = [use.node for output in node.outputs for use in output.uses()]
        if any(reader in found or reader.op_type in KERNELS for reader in readers):
            found.add(node)
    return found


def _is_fit(layer: "Layer") -> bool:
    """A convolution in float32 with two channels or more, of whose kernel and bias nobody else knows."""
    node, output = layer.node, _output(layer)
    if node.op_type not in CONVOLUTIONS or len(node.inputs) < 3 or output.is_graph_output():
        return False
    kernel, bias = (stored_tensor(value) for value in node.inputs[1:3])
    if kernel is None or bias is None or not kernel.dtype == bias.dtype == ir.DataType.FLOAT or bias.size < 2:
        return False
    alone = all(
        value is not None and len(value.uses()) == 1 and not value.is_graph_output()
        for value in node.inputs[1:3]
    )
    return alone and shared_values(np.asarray(kernel.numpy())) is None


def _output(layer: "Layer") -> ir.Value:
    return layer.node.outputs[0]


def _insert(layer: "Layer", now: Moments, wanted: Moments, fresh: Callable[[str], str]) -> ir.Node:
    """Normalization that takes what is distributed as now and gives what is as wanted, under the same name."""
    before = _output(layer)
    name, norm_name = before.name or "", fresh(f"{layer.name}.norm")
    after = ir.Value(type=before.type, shape=before.shape)
    ir.convenience.replace_all_uses_with(before, after)
    before.name, after.name = fresh(f"{name}.raw"), name
    scale = np.sqrt(wanted[1] + EPSILON)
    parts = {"scale": scale, "bias": wanted[0], "mean": now[0], "variance": now[1]}
    stored = [_store(layer.graph, fresh(f"{norm_name}.{part}"), array) for part, array in parts.items()]
    norm = ir.Node(
        "",
        "BatchNormalization",
        [before, *stored],
        [ir.AttrFloat32("epsilon", EPSILON)],
        outputs=[after],
        name=norm_name,
    )
    layer.graph.insert_after(layer.node, norm)
    return norm


def _store(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    tensor = ir.tensor(array.astype(np.float32), name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    graph.register_initializer(value)
    return value


@torch.no_grad()
def _moments(view: TrainableGraph, names: Collection[str], batches: Batches) -> dict[str, Moments]:
    """Mean and variance of each channel of these values, where they have several positions."""
    sums: dict[str, Tensor] = {}
    for batch in batches.each(batches.drawn_rows(SAMPLES)):
        fed = len(next(iter(batch.feeds.values())))
        for name, value in view(feed_tensors(batch, view.device), names).items():
            if name in names and value[0, 0].numel() > 1:
                # A sample may have several rows here, such as the frames of a clip.
                known = value[: len(value) * batch.samples // fed]
                wide = known.double().transpose(0, 1).flatten(1)
                count = torch.full_like(wide[:, 0], wide.shape[1])
                found = torch.stack([count, wide.sum(1), wide.square().sum(1)])
                sums[name] = sums[name] + found if name in sums else found
    return {name: _mean_and_variance(*found.cpu().numpy()) for name, found in sums.items()}


def _mean_and_variance(count: Array, total: Array, squares: Array) -> Moments:
    mean = total / count
    return mean, np.maximum(squares / count - mean**2, 0)
