"""Parameters that several calls share, with their bounds and descriptions."""

from typing import Annotated, Literal

from fastapi import Header, Path, Query

from compression.method import MODEL_ID

_ID = "_[0-9a-z]{26}$"
DATASET_ID = f"^dst{_ID}"
JOB_ID = f"^job{_ID}"

ModelId = Annotated[str, Path(pattern=MODEL_ID, description="id of a model")]
DatasetId = Annotated[str, Path(pattern=DATASET_ID, description="id of a dataset")]
JobId = Annotated[str, Path(pattern=JOB_ID, description="id of a job")]
ArtifactId = Annotated[str, Path(pattern=f"^art{_ID}", description="id of an artifact")]

Limit = Annotated[int, Query(ge=1, le=200, description="most items to return")]
Wait = Annotated[
    float,
    Query(ge=0, le=60, description="seconds to wait for the end before answering; 0 answers at once"),
]
ModelCursor = Annotated[str | None, Query(pattern=MODEL_ID, description="`next_cursor` of the last page")]
DatasetCursor = Annotated[str | None, Query(pattern=DATASET_ID, description="`next_cursor` of the last page")]
JobCursor = Annotated[str | None, Query(pattern=JOB_ID, description="`next_cursor` of the last page")]

As = Annotated[
    Literal["onnx"] | None,
    Query(
        alias="as", description="`onnx` unpacks a packed model on its way out; `Range` does not count then"
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", max_length=4000, description="ETags the caller has; 304 if one is current"),
]
IfRange = Annotated[
    str | None,
    Header(
        alias="If-Range",
        max_length=200,
        description="the ETag for which `Range` is meant; another one gives it all",
    ),
]
Range = Annotated[
    str | None,
    Header(
        alias="Range",
        max_length=200,
        description="one range of bytes, such as `bytes=0-999`; several give the whole",
    ),
]
