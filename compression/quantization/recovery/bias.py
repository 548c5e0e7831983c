"""Bias correction: quantization must not move the mean of what a layer gives (Nagel et al. 2019)."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from compression.method import StepContext
from compression.quantization.probe import Feeds
from compression.quantization.recovery.means import Means, output_means
from compression.quantization.recovery.shifting import cannot_shift, shift
from compression.quantization.recovery.siblings import add_siblings
from compression.quantization.storage import Names

Write = Callable[[ir.Model], object]
"""Quantizes a model of floats in place."""
Draw = Callable[[], Iterable[Feeds]]
"""Begins the feeds anew."""
AT_ONCE, IN_TURN = "all layers at once", "layer by layer"


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """Floats with corrected biases."""

    how: str
    model: ir.Model
    layers: int
    """Of which the bias was corrected."""


@dataclass(frozen=True, kw_only=True)
class BiasCorrection:
    """Adds E[y_float] - E[y_quantized] of layers' outputs to their biases (arXiv:1906.04721, section 4.2).

    Two ways, of which neither is always the better:

    1. All at once: both means are of the same quantized inputs, so that a layer's shift is that of its own
       weight and bias alone, E[(W - W_q) x] + b - b_q, with the layer's padding. One pass.
    2. Layer by layer from the inputs on: the float layer's mean is that of the float model, so that also what
       quantized activations shift, and what corrected layers before it left over, is taken back. One pass for
       each layer, with those before it corrected.
    """

    floats: ir.Model
    """Stays as it is."""
    layers: Sequence[str]
    """Names of the nodes that `write` quantizes."""
    write: Write
    draw: Draw
    context: StepContext
    seconds: float
    """Passes layer by layer may take, about; where they would take longer there are none."""

    def ways(self) -> Iterator[Corrected]:
        """The floats corrected one way, then the other."""
        chosen = set(self.layers)
        able = [
            node.name
            for node in self.floats.graph
            if node.name and node.name in chosen and not cannot_shift(node)
        ]
        if not able:
            return
        began = time.monotonic()
        yield self._at_once(able)
        one_pass = time.monotonic() - began
        if len(able) > 1 and one_pass * len(able) <= self.seconds:
            yield self._in_turn(able)

    def _at_once(self, able: Sequence[str]) -> Corrected:
        self.context.report(0.0, f"taking the means of {len(able)} layers")
        quantized = self._quantized(self.floats)
        siblings = add_siblings(quantized, self.floats, able)
        found = output_means(quantized, [*able, *siblings.values()], self.draw(), self.context)
        both = {name: twin for name, twin in siblings.items() if name in found and twin in found}
        return self._shifted(AT_ONCE, {name: found[twin] - found[name] for name, twin in both.items()})

    def _in_turn(self, able: Sequence[str]) -> Corrected:
        wanted = output_means(self.floats, able, self.draw(), self.context)
        model, count = self.floats.clone(), 0
        for number, name in enumerate(able):
            self.context.report(number / len(able), f"correcting biases, layer {number + 1} of {len(able)}")
            found = output_means(self._quantized(model), [name], self.draw(), self.context)
            if name in wanted and name in found:
                _shift(model, {name: wanted[name] - found[name]})
                count += 1
        return Corrected(how=IN_TURN, model=model, layers=count)

    def _quantized(self, model: ir.Model) -> ir.Model:
        copy = model.clone()
        self.write(copy)
        return copy

    def _shifted(self, how: str, amounts: Means) -> Corrected:
        model = self.floats.clone()
        _shift(model, amounts)
        return Corrected(how=how, model=model, layers=len(amounts))


def _shift(model: ir.Model, amounts: Means) -> None:
    names = Names(model)
    for node in list(model.graph):
        if node.name in amounts:
            shift(node, amounts[node.name], names)
