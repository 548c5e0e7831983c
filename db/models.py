"""The rows that the API and the workers share. Every query on them lives in a sibling module."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UTCDateTime(TypeDecorator[datetime]):
    """A timezone-aware moment in UTC on every dialect; SQLite alone would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return (
            None
            if value is None
            else value.replace(tzinfo=UTC)
            if value.tzinfo is None
            else value.astimezone(UTC)
        )


_JSON = JSON(none_as_null=True)


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012
        datetime: UTCDateTime,
        dict[str, Any]: _JSON,
        dict[str, str]: _JSON,
        list[str]: _JSON,
    }


def _words(kind: type[StrEnum], length: int) -> Enum:
    """A column of plain text that reads back as `kind`; a new member then needs no migration."""
    return Enum(
        kind,
        native_enum=False,
        length=length,
        values_callable=lambda members: [str(member) for member in members],
    )


class AssetKind(StrEnum):
    MODEL = "model"
    DATASET = "dataset"


class AssetState(StrEnum):
    INSPECTING = "inspecting"
    READY = "ready"
    REFUSED = "refused"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES


FINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
HELD_STATES = frozenset({JobState.RUNNING, JobState.CANCELLING})
"""A worker holds the job: it has a token and a lease."""
LIVE_STATES = HELD_STATES | {JobState.QUEUED}


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Project(Base):
    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    max_stored_bytes: Mapped[int] = mapped_column(BigInteger)
    max_running_jobs: Mapped[int]
    max_queued_jobs: Mapped[int]
    created_at: Mapped[datetime]


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(20), doc="the first characters, to tell keys apart")
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Blob(Base):
    """Bytes a project has stored, once each, whatever refers to them."""

    __tablename__ = "blobs"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class Asset(Base):
    """An uploaded model or dataset and what its inspection found."""

    __tablename__ = "assets"
    __table_args__ = (
        Index("assets_listing", "project_id", "kind", "id"),
        Index("assets_state", "state"),
        Index("assets_bytes", "project_id", "sha256"),
        Index("assets_converted_bytes", "project_id", "converted_sha256"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[AssetKind] = mapped_column(_words(AssetKind, 10))
    name: Mapped[str] = mapped_column(String(200))
    filename: Mapped[str] = mapped_column(String(255))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[AssetState] = mapped_column(_words(AssetState, 12))
    converted_sha256: Mapped[str | None] = mapped_column(
        String(64), doc="of the ONNX model that was made of an upload in another format"
    )
    converted_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    summary: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    attempt: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    rung_at: Mapped[datetime | None] = mapped_column(doc="when the worker was last woken for it")
    created_at: Mapped[datetime]
    inspected_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    @property
    def used_sha256(self) -> str:
        """Of the bytes that jobs read: what the upload was converted to, or the upload itself."""
        return self.converted_sha256 or self.sha256

    @property
    def used_size_bytes(self) -> int:
        return self.size_bytes if self.converted_size_bytes is None else self.converted_size_bytes


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_listing", "project_id", "id"), Index("jobs_state", "state", "queue"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(String(200))
    labels: Mapped[dict[str, str]]
    model_id: Mapped[str] = mapped_column(ForeignKey("assets.id"))
    data: Mapped[dict[str, str]] = mapped_column(doc="role -> dataset id")
    models: Mapped[list[str] | None] = mapped_column(
        doc="ids of the other models that its steps name; null in jobs from before there were any"
    )
    spec: Mapped[dict[str, Any]]
    preflight: Mapped[dict[str, Any]]
    retry_of: Mapped[str | None] = mapped_column(String(40))

    state: Mapped[JobState] = mapped_column(_words(JobState, 12))
    queue: Mapped[str] = mapped_column(String(10), doc="cpu or cuda: the Celery queue it waits in")
    time_limit_s: Mapped[float]
    attempt: Mapped[int] = mapped_column(default=0)
    token: Mapped[str | None] = mapped_column(
        String(40), doc="of the running attempt; every write of a worker carries it"
    )
    worker: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[datetime | None]
    rung_at: Mapped[datetime | None] = mapped_column(doc="when a worker was last woken for it")
    ran_s: Mapped[float] = mapped_column(
        default=0.0, doc="seconds that earlier attempts ran; queue wait is not in it"
    )

    step: Mapped[int | None] = mapped_column(
        doc="index of the current step; the number of steps while evaluating"
    )
    fraction: Mapped[float] = mapped_column(default=0.0, doc="of the whole job, 0..1")
    message: Mapped[str] = mapped_column(Text, default="")
    eta_s: Mapped[float | None]

    created_at: Mapped[datetime]
    queued_at: Mapped[datetime] = mapped_column(doc="when it last entered the queue")
    started_at: Mapped[datetime | None] = mapped_column(doc="of the first attempt")
    claimed_at: Mapped[datetime | None] = mapped_column(doc="of the latest attempt")
    cancel_requested_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    measurements: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None] = mapped_column(doc="code, message, where, hint, retryable")

    steps: Mapped[list["JobStep"]] = relationship(order_by="JobStep.index", lazy="selectin")
    artifacts: Mapped[list["Artifact"]] = relationship(order_by="Artifact.id", lazy="selectin")


class JobStep(Base):
    __tablename__ = "job_steps"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    method: Mapped[str] = mapped_column(String(60))
    state: Mapped[StepState] = mapped_column(_words(StepState, 12))
    cached: Mapped[bool] = mapped_column(default=False, doc="served from the step cache or a checkpoint")
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    seconds: Mapped[float | None]
    outcome: Mapped[dict[str, Any] | None] = mapped_column(doc="layers, notes, details, size_bytes")


class JobCheckpoint(Base):
    """How far a job's unfinished step is: one file, replaced as the step goes on."""

    __tablename__ = "job_checkpoints"
    __table_args__ = (Index("job_checkpoints_bytes", "project_id", "sha256"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    step_key: Mapped[str] = mapped_column(
        String(64), doc="the key under which the step's result will be: all that determines it"
    )
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    saved_at: Mapped[datetime]


class StepResult(Base):
    """The step cache: a finished step's model by everything that determines it."""

    __tablename__ = "step_results"
    __table_args__ = (Index("step_results_use", "project_id", "last_used_at"),)

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    outcome: Mapped[dict[str, Any]]
    size_bytes: Mapped[int] = mapped_column(BigInteger, doc="of all its files together")
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]

    files: Mapped[list["StepResultFile"]] = relationship(
        order_by="StepResultFile.name", lazy="selectin", cascade="all, delete-orphan"
    )


class StepResultFile(Base):
    __tablename__ = "step_result_files"
    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "key"], ["step_results.project_id", "step_results.key"], ondelete="CASCADE"
        ),
        Index("step_result_files_bytes", "project_id", "sha256"),
    )

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(
        String(255), primary_key=True, doc="relative path within the step's folder"
    )
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class JobEvent(Base):
    """What happened to a job, in order; `id` is the SSE event id."""

    __tablename__ = "job_events"
    __table_args__ = (Index("job_events_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(30), doc="state, step, progress, note")
    at: Mapped[datetime]
    data: Mapped[dict[str, Any]]


class Artifact(Base):
    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("job_id", "name"), Index("artifacts_bytes", "project_id", "sha256"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(255))
    media_type: Mapped[str] = mapped_column(String(100))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class IdempotencyKey(Base):
    """A submission that was answered before, kept for a day."""

    __tablename__ = "idempotency_keys"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), doc="sha256 of method, path and body")
    job_id: Mapped[str | None] = mapped_column(
        String(40), doc="null while the first submission is in progress"
    )
    created_at: Mapped[datetime]


class Worker(Base):
    """A worker process as it last reported itself."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    queue: Mapped[str] = mapped_column(String(20))
    isolation: Mapped[str] = mapped_column(String(20), doc="bubblewrap, namespaces or rlimits")
    devices: Mapped[list[str]]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
