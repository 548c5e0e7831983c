"""What goes into a run of the pipeline and what comes out: values that cross the border to the worker.

The module is light on purpose: a supervisor reads events without importing numpy, onnx_ir or onnxruntime.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from compression.checkpoints import EVERY_S
from compression.measurements import Measurements
from compression.method import Device, LayerOutcome, Role
from compression.spec import CompressionSpec

STEPS_FOLDER = "steps"
"""Under the job folder; step i leaves `steps/<i>/model.onnx` (and `model.onnx.data` and further files there)."""
CHECKPOINTS_FOLDER = "checkpoints"
"""Under the job folder; step i keeps how far it is in `checkpoints/<i>/`, until it has finished."""


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StepRecord(Value):
    """What a finished step has to tell, as stored on the job's row and in the step cache."""

    layers: tuple[LayerOutcome, ...]
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = Field(default_factory=dict)
    size_bytes: int = Field(description="the step's model on disk, external data included")
    files: tuple[str, ...] = Field((), description="names of the step's results beside its model")


class StepStarted(Value):
    type: Literal["step_started"] = "step_started"
    index: int
    method: str


class Progress(Value):
    """How far the job is. While it evaluates, `index` is the number of steps."""

    type: Literal["progress"] = "progress"
    index: int
    fraction: float = Field(ge=0, le=1, description="of the current step")
    overall: float = Field(ge=0, le=1, description="of the whole job; never falls")
    message: str
    eta_s: float | None = Field(description="seconds to the end of the job; null while nothing is known yet")


class StepFinished(Value):
    """The step's files lie in the job folder and are complete; they can be stored as a checkpoint."""

    type: Literal["step_finished"] = "step_finished"
    index: int
    seconds: float
    outcome: StepRecord
    files: tuple[str, ...] = Field(description="paths relative to the job folder; the model itself first")


class CheckpointSaved(Value):
    """The step has saved how far it is. The file is complete and is never written again; it goes in time."""

    type: Literal["checkpoint_saved"] = "checkpoint_saved"
    index: int
    file: str = Field(description="path relative to the job folder")


class Note(Value):
    type: Literal["note"] = "note"
    message: str


AnyEvent = StepStarted | Progress | CheckpointSaved | StepFinished | Note
Event = Annotated[AnyEvent, Field(discriminator="type")]
EVENT: TypeAdapter[AnyEvent] = TypeAdapter(Event)
"""Reads an event back from JSON: `EVENT.validate_json(line)`."""


@dataclass(frozen=True, kw_only=True)
class FinishedStep:
    """A step that an earlier attempt, or another job through the step cache, has done already.

    Before the run starts, `folder / "steps" / str(index)` holds the last one's files, and of the earlier ones
    those that are not their model.
    """

    outcome: StepRecord
    seconds: float = 0.0


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a spec on one model. `folder` is the job's own; everything made is written below it."""

    spec: CompressionSpec
    model: Path
    data: Mapping[Role, Path] = field(default_factory=dict)
    models: Mapping[str, Path] = field(default_factory=dict)
    """The other models that steps name, by id."""
    folder: Path
    device: Device = "cpu"
    finished: tuple[FinishedStep, ...] = ()
    """The first steps of the spec, in order, that need not run again."""
    checkpoint: Path | None = None
    """What an earlier attempt saved in the middle of the step after those."""
    checkpoint_every_s: float = EVERY_S
    """Seconds after which a running step's next checkpoint is due."""
    threads: int = field(default_factory=_usable_cores)
    request: Mapping[str, Any] = field(default_factory=dict)
    """What recipe.json repeats of the request beside the spec: model_id, data (ids by role), name, labels."""


class OutputFile(Value):
    """A file for the user. `path` is relative to the job folder."""

    name: str
    path: str
    media_type: str


class Result(Value):
    measurements: Measurements
    outputs: tuple[OutputFile, ...]
