"""The body of a job submission."""

from collections.abc import Iterable
from math import isfinite
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationInfo, model_validator

from api.parameters import DATASET_ID
from compression.method import MODEL_ID, Method, Role
from compression.spec import CompressionSpec

MAX_DEPTH = 20
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern="^[^: \\t\\r\\n\\x00]+$")]
LabelValue = Annotated[str, StringConstraints(max_length=512)]
DatasetRef = Annotated[str, Field(pattern=DATASET_ID, description="id of a dataset")]


class JobRequest(CompressionSpec):
    """What to do to which model, with which data, and how to judge the result."""

    model_id: str = Field(pattern=MODEL_ID, description="the model to compress: id of an upload")
    name: str = Field("", max_length=200, description="what to call the job; made from its steps if left out")
    data: dict[Role, DatasetRef] = Field(
        default_factory=dict, description="datasets by what they are used for", max_length=len(Role)
    )
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=16, description="up to 16 keys and values to find the job by"
    )
    time_limit_s: float | None = Field(
        None,
        gt=0,
        le=7 * 24 * 3600,
        description="ends the job when it has run so long, waiting in the queue not counted; "
        "null for the service's limit, which is also the most",
    )

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, document: Any, info: ValidationInfo) -> Any:
        """Databases take neither NUL nor lone surrogates nor NaN, wherever they stand."""
        for value in _values(document, 0):
            if isinstance(value, str) and not _is_plain(value):
                raise ValueError("text may hold neither NUL characters nor lone surrogates")
            if isinstance(value, float) and not isfinite(value):
                raise ValueError("numbers must be finite")
            if isinstance(value, int) and abs(value) > 2**63:
                raise ValueError("numbers must fit in 64 bits")
        return document

    def spec(self) -> CompressionSpec:
        return CompressionSpec.model_construct(
            **{field: getattr(self, field) for field in CompressionSpec.model_fields}
        )

    def shown_name(self) -> str:
        return self.name or " + ".join(_in_short(step) for step in self.steps)[:200]


def _in_short(step: Method) -> str:
    """The method and what was set otherwise than by default: `prune_magnitude sparsity=0.5`."""
    changed = {
        name: value
        for name, value in step
        if name not in {"method", "layers"} and value != type(step).model_fields[name].default
    }
    plain = {name: value for name, value in changed.items() if isinstance(value, (str, int, float))}
    return " ".join((step.method, *(f"{name}={value}" for name, value in plain.items())))


def _values(document: Any, depth: int) -> Iterable[Any]:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            yield from _values(value, depth + 1)
    elif isinstance(document, list):
        for value in document:
            yield from _values(value, depth + 1)
    else:
        yield document


def _is_plain(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text)
