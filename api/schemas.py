"""Response bodies. Every field is described here, for these descriptions are the API's documentation."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from compression.measurements import Measurements
from compression.method import Change, LayerOutcome, Role
from compression.method import Problem as Finding
from compression.preflight import Preflight
from compression.spec import Evaluation
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from db.models import AssetState, JobState, StepState

T = TypeVar("T")


class Body(BaseModel):
    model_config = ConfigDict(frozen=True)


class Page(Body, Generic[T]):
    items: tuple[T, ...]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null at the end")


class ProblemDetails(Body):
    """RFC 9457. Every error of every call has this body, as `application/problem+json`."""

    type: str = Field(description="a URN that ends in `code`")
    title: str
    status: int
    detail: str = Field(description="what was wrong, in a sentence")
    instance: str = Field(description="the path that was called")
    code: str = Field(description="stable: programs may act on it")
    request_id: str = Field(description="as in the header X-Request-Id; the service's log has it too")
    errors: tuple[Finding, ...] = Field(description="each finding by itself, with place and hint where known")


class Failure(Body):
    """Why an inspection or a job ended without a result."""

    code: str = Field(description="stable: programs may act on it")
    message: str
    where: str | None = Field(None, description="the layer, tensor, step or field concerned")
    hint: str | None = Field(None, description="the nearest thing that would work")
    retryable: bool = Field(False, description="the same again may succeed")


class AssetBody(Body):
    id: str
    name: str
    filename: str = Field(description="as it was uploaded")
    state: AssetState = Field(
        description="`inspecting` until a worker has looked inside; then `ready`, or `refused` with `error`"
    )
    size_bytes: int
    sha256: str
    error: Failure | None = Field(description="why it was refused")
    created_at: datetime
    inspected_at: datetime | None
    links: dict[str, str] = Field(description="paths of what belongs to it")


class Model(AssetBody):
    """An uploaded model and what its inspection found."""

    summary: ModelSummary | None = Field(
        description="what is inside; null before the inspection is done, and in lists"
    )


class Dataset(AssetBody):
    """An uploaded dataset and what its inspection found."""

    summary: DatasetSummary | None = Field(description="what is inside; null before the inspection is done")


class Layers(Page[LayerSummary]):
    """A model's layers with weights, in its order."""


class MethodBody(Body):
    """A compression method: a step of a job names it and sets its parameters."""

    name: str
    title: str
    description: str
    source: str = Field(description="paper, section and equation, or the document of a format; may be empty")
    version: int = Field(description="rises whenever the same input would give another result")
    needs: tuple[Role, ...] = Field(description="data roles without which the step is refused")
    needs_labels: bool = Field(description="the needed data must have an array named `labels`")
    uses: tuple[Role, ...] = Field(description="data roles that the step reads where they are given")
    changes: tuple[Change, ...] = Field(description="what it may change in a model")
    op_types: tuple[str, ...] | None = Field(
        description="layer kinds it works on; null for all with float weights"
    )
    parameters: dict[str, Any] = Field(description="JSON schema of the step")
    example: dict[str, Any] = Field(description="a step that runs as it stands")


class Methods(Page[MethodBody]):
    """All methods, by name."""


class StepBody(Body):
    index: int
    method: str
    parameters: dict[str, Any] = Field(description="the step with its defaults filled in")
    state: StepState
    cached: bool = Field(description="served from an earlier run of the same step on the same input")
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    changed: int | None = Field(description="how many layers it changed; null before it is done")
    size_bytes: int | None = Field(description="of the model after the step")


class StepDetail(StepBody):
    layers: tuple[LayerOutcome, ...] = Field(description="what became of each layer")
    notes: tuple[str, ...] = Field(description="what a user should not have to guess")


class JobBody(Body):
    id: str
    name: str
    state: JobState
    model_id: str
    data: dict[str, str] = Field(description="role -> dataset id")
    labels: dict[str, str]
    steps: tuple[StepBody, ...]
    device: Literal["cpu", "cuda"] = Field(
        description="where it runs: `auto` was resolved when it was submitted"
    )
    seed: int
    time_limit_s: float = Field(description="of running; waiting in the queue is not counted")
    percentage_done: float = Field(ge=0, le=100)
    step: int | None = Field(description="index of the current step; the number of steps while evaluating")
    message: str = Field(description="what it is doing now")
    eta_s: float | None = Field(description="estimated seconds to the end; null where not known")
    attempt: int = Field(description="how often it was started; a worker that dies does not fail the job")
    retry_of: str | None = Field(description="the job that this one repeats")
    created_at: datetime
    queued_at: datetime = Field(description="when it last entered the queue")
    started_at: datetime | None
    cancel_requested_at: datetime | None
    finished_at: datetime | None
    size_ratio: float | None = Field(description="original size / compressed size; null before it succeeded")
    speedup: float | None = Field(description="original / compressed latency; null where not measured")
    verdict: str | None = Field(description="one sentence that does not flatter")
    error: Failure | None = Field(description="why it failed")
    links: dict[str, str] = Field(description="paths of what belongs to it and of what can be done to it")


class JobItem(JobBody):
    """A job as lists show it."""


class Job(JobBody):
    """A job with all that is known about it."""

    steps: tuple[StepDetail, ...]
    evaluation: Evaluation
    queue_position: int | None = Field(
        description="1 for the one that a free worker takes next; null unless queued"
    )
    waiting_for: str | None = Field(description="what a queued job waits for, in words")
    preflight: Preflight = Field(description="what was expected when it was submitted")
    measurements: Measurements | None = Field(
        description="original and compressed side by side; null before it succeeded"
    )


class EventBody(Body):
    """Something that happened to a job. As a server-sent event, `id` and `type` are the event's own."""

    id: int
    type: str = Field(description="state, step, progress or note")
    at: datetime
    data: dict[str, Any]


class Events(Body):
    items: tuple[EventBody, ...] = Field(description="the oldest first")
    next_after: int = Field(description="pass it as `after` to read on")
    final: bool = Field(description="the job is over and these are its last events")


class ArtifactBody(Body):
    """A file that a job made."""

    id: str
    name: str
    job_id: str
    media_type: str
    size_bytes: int
    sha256: str
    created_at: datetime
    links: dict[str, str]


class Artifacts(Page[ArtifactBody]):
    """All files of a job."""


class Part(Body):
    ok: bool
    detail: str


class Health(Body):
    status: Literal["ok"] = "ok"
    version: str


class Readiness(Body):
    """Whether each part that a request may need answers."""

    status: Literal["ready", "not_ready"]
    parts: dict[str, Part] = Field(description="database, storage, broker")
    workers: dict[str, int] = Field(description="queue -> workers that reported in the last minute")
