"""pack: the model as a file that is as small as entropy coding makes it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from compression.method import Change, Method, Role, StepContext, StepOutcome
from compression.summary import DatasetSummary, LayerSummary, ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir

BYTES_PER_SECOND = 4e6


class Pack(Method):
    """Adds `model.packed`, from which the model comes back byte for byte; the model itself passes through unchanged.

    Make it the last step: it packs the model as it is then. Each tensor is coded by what is smallest for it: the
    places of zeros by how dense rows and columns are, codebooks, planes of floats, ANS or zstd; the graph by zstd with
    a dictionary. Everything is packed; `layers` are those the report tells of. `GET
    /v1/artifacts/{id}/content?as=onnx` and `python -m compression.coding unpack` unpack it.
    """

    title: ClassVar[str] = "Add an entropy-coded file that unpacks to the model byte for byte"
    source: ClassVar[str] = (
        "docs/packed-format.md; Han, Mao and Dally 2016, Deep Compression (arXiv:1510.00149), sections 2 to 4; Duda "
        "2013, Asymmetric numeral systems (arXiv:1311.2540); Bamler 2022, constriction (arXiv:2201.01741)"
    )
    changes: ClassVar[tuple[Change, ...]] = ()
    example: ClassVar[Mapping[str, Any]] = {"method": "pack"}

    method: Literal["pack"] = "pack"

    def unfit(self, layer: LayerSummary) -> str | None:
        """Whatever holds weights, of any type."""
        return None if layer.weights else "has no weights of its own"

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        return 0.5 + model.size_bytes / BYTES_PER_SECOND

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.coding.step import pack_model
        from compression.graph import select

        return pack_model(model, select(model, self), context)
