"""optimize_graph: the same function with fewer nodes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from compression.errors import NotApplicable
from compression.method import Change, LayerOutcome, Method, Role, StepContext, StepOutcome
from compression.summary import DatasetSummary, LayerSummary, ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.graph import Layer


class OptimizeGraph(Method):
    """Folds constants and normalization, drops dead and repeated nodes and weights, keeps every output.

    BatchNormalization, and what else scales or shifts channels by constants, goes into the layers before and behind
    it. HardSigmoid and HardSwish that an exporter spelt out as Add, Clip and Div become HardSigmoid, which is faster;
    from opset 20 on, a Gelu spelt out with Erf becomes Gelu.

    Nothing is rounded or dropped that an output depends on. A layer that is left out keeps its weights to
    the last bit: nothing is folded into it.
    """

    version: ClassVar[int] = 3
    title: ClassVar[str] = "Fold constants and normalization, drop what no output needs"
    source: ClassVar[str] = (
        "BatchNormalization into the layer before it: Jacob et al. 2018 (arXiv:1712.05877), section 3.2, "
        "w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta; "
        "HardSwish: Howard et al. 2019 (arXiv:1905.02244), section 5.2; "
        "Gelu: Hendrycks and Gimpel 2016 (arXiv:1606.08415), section 2"
    )
    changes: ClassVar[tuple[Change, ...]] = ("structure", "values")
    example: ClassVar[Mapping[str, Any]] = {"method": "optimize_graph"}

    method: Literal["optimize_graph"] = "optimize_graph"

    def unfit(self, layer: LayerSummary) -> str | None:
        """Every layer fits, quantized ones too."""
        return None

    def selected(self, model: ModelSummary) -> tuple[LayerSummary, ...]:
        """As for every method, but a model without layers can be optimized as well."""
        try:
            return super().selected(model)
        except NotApplicable:
            return ()

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        return 0.5 + model.size_bytes / 100e6 + sum(model.operators.values()) / 2000

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import clean, layers, select

        before = layers(model)
        chosen = {layer.name for layer in select(model, self)} if before else set()
        weights = {layer.name: _weights(layer) for layer in before}
        operators = _count_operators(model)
        context.report(0.1, "folding constants")
        hidden = _hide(model, [layer for layer in before if layer.name not in chosen])
        try:
            model = clean(model)
        finally:
            _show(model, hidden)
        context.report(0.9, "comparing")
        after = {layer.name: _weights(layer) for layer in layers(model)}
        left = _count_operators(model)
        return StepOutcome(
            model=model,
            layers=tuple(
                _outcome(name, weights[name], after.get(name)) for name in weights if name in chosen
            ),
            notes=(_note(operators, left),),
            details={
                "nodes_before": operators.total(),
                "nodes_after": left.total(),
                "removed": dict(sorted((operators - left).items())),
                "added": dict(sorted((left - operators).items())),
            },
        )


def _hide(model: "ir.Model", kept: Sequence["Layer"]) -> list["ir.Value"]:
    """Turns the weights of layers that must not change into graph inputs: nothing folds an input."""
    graph = model.graph
    hidden: list[ir.Value] = []
    for layer in kept:
        for value in layer.weights:
            if graph.initializers.get(value.name or "") is value and not value.is_graph_input():
                del graph.initializers[value.name or ""]
                graph.inputs.append(value)
                hidden.append(value)
    return hidden


def _show(model: "ir.Model", hidden: Sequence["ir.Value"]) -> None:
    for value in hidden:
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)


def _weights(layer: "Layer") -> tuple[object, ...]:
    return tuple(value.const_value for value in layer.weights)


def _outcome(name: str, before: tuple[object, ...], after: tuple[object, ...] | None) -> LayerOutcome:
    if after is None:
        return LayerOutcome(
            layer=name, changed=True, note="folded into its neighbours, or needed by no output"
        )
    if len(before) == len(after) and all(
        first is second for first, second in zip(before, after, strict=True)
    ):
        return LayerOutcome(layer=name, changed=False, note="nothing to fold into it")
    return LayerOutcome(layer=name, changed=True, note="took in its neighbours")


def _count_operators(model: "ir.Model") -> Counter[str]:
    return Counter(node.op_type for node in model.graph.all_nodes())


def _note(before: Counter[str], after: Counter[str]) -> str:
    removed = ", ".join(f"{count} {name}" for name, count in (before - after).most_common(8))
    return f"{before.total()} nodes became {after.total()}" + (f"; gone: {removed}" if removed else "")
