"""pack: the model as a file that is as small as entropy coding makes it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compression.method import Change, Method, Role, StepContext, StepOutcome
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.weight_targets import target_weights

if TYPE_CHECKING:
    import onnx_ir as ir

BYTES_PER_SECOND = 4e6


class Pack(Method):
    """Adds `model.packed`, from which the model comes back byte for byte. Without a bound the model stays as it is.

    Make it the last step: it packs the model as it is then. Each tensor is coded by what is smallest for it: the
    places of zeros by how dense rows and columns are, codebooks, planes of floats, ANS or zstd; the graph by zstd with
    a dictionary. Everything is packed; `layers` are those the report tells of. `GET
    /v1/artifacts/{id}/content?as=onnx` and `python -m compression.coding unpack` unpack it.

    With `max_error` or `min_sqnr_db`, float matrices and kernels of the chosen layers are first rounded to the
    coarsest uniform grid that keeps the bound, a grid for each tensor, its zone around zero chosen for the fewest bits
    after entropy coding. The model has these values too, so that what is measured is what was packed.
    """

    title: ClassVar[str] = "Add an entropy-coded file that unpacks to the model byte for byte"
    source: ClassVar[str] = (
        "docs/packed-format.md; Han, Mao and Dally 2016, Deep Compression (arXiv:1510.00149), sections 2 to 4; Duda "
        "2013, Asymmetric numeral systems (arXiv:1311.2540); Bamler 2022, constriction (arXiv:2201.01741); Sullivan "
        "1996, Efficient scalar quantization of exponential and Laplacian random variables"
    )
    changes: ClassVar[tuple[Change, ...]] = ("values",)
    example: ClassVar[Mapping[str, Any]] = {"method": "pack", "min_sqnr_db": 40}

    method: Literal["pack"] = "pack"
    max_error: float | None = Field(
        None, gt=0, le=1e6, description="round weights, none of them by more than this; null rounds nothing"
    )
    min_sqnr_db: float | None = Field(
        None,
        ge=3,
        le=100,
        description="round the weights of each tensor as coarsely as keeps their signal to noise ratio; 40 is "
        "about what int8 has",
    )

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if self.max_error is not None and self.min_sqnr_db is not None:
            raise ValueError("give max_error or min_sqnr_db, not both")
        return self

    @property
    def lossy(self) -> bool:
        return self.max_error is not None or self.min_sqnr_db is not None

    def unfit(self, layer: LayerSummary) -> str | None:
        """Whatever holds weights can be packed; only float matrices and kernels can be rounded."""
        if not self.lossy:
            return None if layer.weights else "has no weights of its own"
        reason = super().unfit(layer)
        if reason is None and not target_weights(layer):
            return "has one-dimensional weights only, which are not rounded"
        return reason

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        return 0.5 + model.size_bytes / BYTES_PER_SECOND * (2 if self.lossy else 1)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.coding.lossy import Bound
        from compression.coding.step import pack_model
        from compression.graph import select

        bound = None
        if self.max_error is not None:
            bound = Bound(kind="max_error", value=self.max_error)
        elif self.min_sqnr_db is not None:
            bound = Bound(kind="min_sqnr_db", value=self.min_sqnr_db)
        return pack_model(model, select(model, self), bound, context)
