"""NarrowingMethod: what methods share whose gain is a narrower element type."""

from compression.method import Method
from compression.summary import LayerSummary, ModelSummary


class NarrowingMethod(Method):
    """A method that stores weights in a smaller type: layers that it would not shrink are no candidates.

    A subclass says in `after` how a layer comes out.
    """

    def candidates(self, model: ModelSummary) -> tuple[LayerSummary, ...]:
        return tuple(
            layer for layer in super().candidates(model) if self.after(layer).size_bytes < layer.size_bytes
        )

    def selected(self, model: ModelSummary) -> tuple[LayerSummary, ...]:
        """The candidates that the user's selector picks.

        Raises:
            NotApplicable: no layer has float weights, or no other type would make any of them smaller.
            SelectorMatchedNothing: the selector matches none.
        """
        from compression.quantization.forecast import refuse_small

        refuse_small(self.method, super().candidates(model), self.candidates(model))
        return super().selected(model)
