"""store_sparse: pruned weights without their zeros, as sparse initializers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from compression.method import Change, Method, StepContext, StepOutcome
from compression.summary import LayerSummary, WeightSummary

if TYPE_CHECKING:
    import onnx_ir as ir

INDEX_BYTES = 8
"""ONNX takes int64 only."""


class StoreSparse(Method):
    """Stores weights with enough zeros as ONNX's sparse initializers; every value passes through as it is.

    Each value that is left costs 8 bytes more for its place, so that float32 gains above 67% zeros, float16 above 80%,
    int8 above 89%; tensors that would not shrink are left. onnxruntime makes them dense at load, for every operator, so
    that nothing gets faster; some other tools do not read them. Make it the last step: a later one, `pack` apart,
    writes them dense again. `pack` by itself makes zeros smaller than this does.
    """

    title: ClassVar[str] = "Store pruned weights as sparse initializers"
    source: ClassVar[str] = "ONNX IR specification, SparseTensorProto: values and their places in COO format"
    changes: ClassVar[tuple[Change, ...]] = ()
    example: ClassVar[Mapping[str, Any]] = {"method": "store_sparse"}

    method: Literal["store_sparse"] = "store_sparse"

    def unfit(self, layer: LayerSummary) -> str | None:
        """Whatever holds weights can be stored so, integers too."""
        return None if layer.weights else "has no weights of its own"

    def after(self, layer: LayerSummary) -> LayerSummary:
        return layer.model_copy(update={"weights": tuple(map(_stored, layer.weights))})

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.sparse_storing import store_sparse

        context.report(0.0, "counting zeros")
        return store_sparse(model, select(model, self))


def _stored(weight: WeightSummary) -> WeightSummary:
    width = weight.size_bytes // max(weight.elements, 1)
    size = (weight.elements - weight.zeros) * (width + INDEX_BYTES) + 40
    return weight.model_copy(update={"size_bytes": min(size, weight.size_bytes)}) if width else weight
