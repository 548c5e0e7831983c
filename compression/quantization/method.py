"""NarrowingMethod: what methods share whose gain is a narrower element type."""

from compression.method import Method
from compression.selector import LayerSelector
from compression.summary import LayerSummary, ModelSummary

_WORTH = 0.25
"""Share of a quantized model's weights that must be left in floats for another step to pay."""


class NarrowingMethod(Method):
    """A method that stores weights in a smaller type: layers that it would not shrink are no candidates.

    A subclass says in `after` how a layer comes out.
    """

    def candidates(self, model: ModelSummary) -> tuple[LayerSummary, ...]:
        return tuple(
            layer for layer in super().candidates(model) if self.after(layer).size_bytes < layer.size_bytes
        )

    def idle(self, model: ModelSummary) -> str | None:
        """Where little is left in floats; layers that the user names are worked on all the same."""
        if self.layers != LayerSelector():
            return None
        left = sum(layer.size_bytes for layer in self.candidates(model))
        if left >= _WORTH * model.weight_bytes:
            return None
        rest = (
            f"only {left:,} of its {model.weight_bytes:,} bytes of weights" if left else "none of its weights"
        )
        return f"the model is already quantized, and {rest} could still get smaller: {self.method} leaves it as it is"

    def selected(self, model: ModelSummary) -> tuple[LayerSummary, ...]:
        """The candidates that the user's selector picks.

        Raises:
            NotApplicable: no layer has float weights, or no other type would make any of them smaller.
            SelectorMatchedNothing: the selector matches none.
        """
        from compression.quantization.forecast import refuse_small

        refuse_small(self.method, super().candidates(model), self.candidates(model))
        return super().selected(model)
