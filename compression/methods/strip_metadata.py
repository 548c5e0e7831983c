"""strip_metadata: what exporters leave in a file beside the model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from compression.method import Change, LayerOutcome, Method, StepContext, StepOutcome
from compression.summary import LayerSummary

if TYPE_CHECKING:
    import onnx_ir as ir


class StripMetadata(Method):
    """Takes doc strings, metadata and noted types of inner values out; what computes passes through unchanged.

    Exporters write down where each node comes from, with stack traces and paths of the machine they ran on. Of a small
    model that is a large share, and nobody else's business. Names stay, and `layers` are those the report tells of.
    """

    title: ClassVar[str] = "Take out metadata that exporters leave: stack traces, paths, noted types"
    source: ClassVar[str] = "onnx.proto: doc_string, metadata_props and value_info, which no runtime needs"
    changes: ClassVar[tuple[Change, ...]] = ()
    example: ClassVar[Mapping[str, Any]] = {"method": "strip_metadata"}

    method: Literal["strip_metadata"] = "strip_metadata"

    def unfit(self, layer: LayerSummary) -> str | None:
        """Whatever it holds, of any type."""
        return None

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.graph.stripping import strip

        chosen = select(model, self)
        count = strip(model)
        context.report(0.9, f"took out {count} entries")
        told = (
            f"{count:,} entries that no runtime needs were taken out"
            if count
            else "there was nothing to take out"
        )
        return StepOutcome(
            model=model,
            layers=tuple(
                LayerOutcome(layer=layer.name, changed=False, note="computes as before") for layer in chosen
            ),
            notes=(told,),
            details={"entries": count},
        )
