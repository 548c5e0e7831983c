"""The contract of a compression method, and the values that pass through it.

A method is one file in `compression/methods/` with one class. Its fields are the parameters a user may set,
`forecast` says from a summary alone what the step would do, and `apply` does it. Its module imports
neither torch nor onnxruntime at its top, since the API reads every method's fields; `apply` imports what
it needs.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from compression.checkpoints import Checkpoints, NoCheckpoints
from compression.errors import CompressionError, NotApplicable, SelectorMatchedNothing
from compression.selector import LayerSelector, matches
from compression.summary import DatasetSummary, LayerSummary, ModelSummary

if TYPE_CHECKING:
    import onnx_ir as ir

    from compression.data import Dataset


class Role(StrEnum):
    """What a dataset is used for."""

    CALIBRATION = "calibration"
    TRAINING = "training"
    EVALUATION = "evaluation"


Device = Literal["cpu", "cuda"]
Change = Literal["values", "dtypes", "structure"]

MODEL_ID = "^mdl_[0-9a-z]{26}$"


class _AnotherModel:
    """Marks the fields that name one."""


OtherModel = Annotated[
    str, Field(pattern=MODEL_ID, description="id of another uploaded model"), _AnotherModel()
]
"""A field with a model that the step reads beside the one it works on: a teacher, an earlier checkpoint."""
NO_MODELS: Mapping[str, ModelSummary] = MappingProxyType({})


class Problem(BaseModel):
    """Why a step cannot run (or, as a warning, what to expect), and the nearest thing that would work."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    where: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, error: CompressionError) -> "Problem":
        return cls(code=error.code, message=error.message, where=error.where, hint=error.hint)

    def as_error(self) -> CompressionError:
        """The error it stands for, to be raised where there is no preflight to show it in."""
        kinds: dict[str, type[CompressionError]] = {kind.code: kind for kind in _kinds(CompressionError)}
        return kinds.get(self.code, NotApplicable)(self.message, where=self.where, hint=self.hint)


def _kinds(root: type[CompressionError]) -> Iterator[type[CompressionError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


class LayerOutcome(BaseModel):
    """What became of one layer: changed, or kept as it was for a reason."""

    model_config = ConfigDict(frozen=True)

    layer: str
    changed: bool
    note: str = Field(
        description="what was done, or why nothing was: 'int8 per channel', 'already quantized'"
    )
    numbers: dict[str, float] = Field(
        default_factory=dict, description="figures by name, such as sparsity or sqnr_db"
    )


class Forecast(BaseModel):
    """What a step would do to a model, told from its summary."""

    model_config = ConfigDict(frozen=True)

    layers: tuple[str, ...] = Field((), description="names of the layers that would be touched")
    model_after: ModelSummary = Field(exclude=True)
    problems: tuple[Problem, ...] = Field((), description="why the step is refused; empty when it can run")
    warnings: tuple[Problem, ...] = ()
    peak_memory_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What a step may use while it runs."""

    workdir: Path
    """An empty folder for scratch files, removed after the step."""
    data: Mapping[Role, "Dataset"]
    device: Device
    threads: int
    seed: int
    report: Callable[[float, str], None]
    """Tells progress: fraction done in 0..1 and a short present-tense message. Cheap; call it often."""
    models: Mapping[str, Path] = field(default_factory=dict)
    """The step's other models by id: ONNX files with their external data beside them, for `graph.load`."""
    original: Path | None = None
    """The model that the job was given, for `graph.load`; None where the step stands alone."""
    timing: Callable[[], AbstractContextManager[None]] = nullcontext
    """Hold it while inferences are timed, and only then: no two jobs of a machine time at once."""
    checkpoints: Checkpoints = field(default_factory=NoCheckpoints)
    """A step that takes minutes saves here how far it is, and begins with what `load` gives."""


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What a step made."""

    model: "ir.Model"
    layers: tuple[LayerOutcome, ...]
    notes: tuple[str, ...] = ()
    """Sentences for the report: fallbacks, decisions, anything a user should not have to guess."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able facts for report.json, such as the candidates measured by quantize_static."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Further results by the name that the job gives them, such as `encoder.onnx`: two at most."""
    unchanged: bool = False
    """The model is the one that was given, so that its very file is the result."""


class Method(BaseModel, ABC):
    """One step of a pipeline. A subclass adds `method: Literal["name"]` and its parameters as fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: ClassVar[str]
    """One line for people: what it does."""
    source: ClassVar[str] = ""
    """Where the method comes from: paper, section, equation; or the document of a format."""
    version: ClassVar[int] = 1
    """Raise it whenever the same input would give another result: it is part of the step cache key."""
    needs: ClassVar[frozenset[Role]] = frozenset()
    """Data roles without which the step cannot run."""
    uses: ClassVar[frozenset[Role]] = frozenset()
    """Data roles that the step reads where they are given (part of the step cache key, as `needs` is)."""
    needs_labels: ClassVar[bool] = False
    changes: ClassVar[tuple[Change, ...]]
    op_types: ClassVar[frozenset[str] | None] = None
    """Layer kinds it can work on; None for every layer that has a float weight."""
    example: ClassVar[Mapping[str, Any]]
    """A step that runs as it stands, shown in the documentation and run by the tests."""

    method: str
    layers: LayerSelector = Field(
        default_factory=LayerSelector, description="which layers the step touches; all that it can by default"
    )

    def other_models(self) -> tuple[str, ...]:
        """Ids of the models that the step reads beside its own: what its fields of type `OtherModel` hold."""
        fields = (name for name, info in type(self).model_fields.items() if _names_models(info))
        values = (getattr(self, name) for name in fields)
        return tuple(dict.fromkeys(v for v in values if isinstance(v, str) and re.fullmatch(MODEL_ID, v)))

    def candidates(self, model: ModelSummary) -> tuple[LayerSummary, ...]:
        """Layers this method can work on, before the user's selector."""
        return tuple(layer for layer in model.layers if self.unfit(layer) is None)

    def unfit(self, layer: LayerSummary) -> str | None:
        """Why this method cannot work on a layer, as the end of a sentence; None where it can."""
        if self.op_types is not None and layer.op_type not in self.op_types:
            return f"is {layer.op_type}, which this method does not work on"
        if not layer.weights:
            return "has no weights of its own"
        if not layer.weight.is_float:
            return f"holds {layer.weight.dtype}: it is already quantized"
        return nonfinite(layer)

    def selected(self, model: ModelSummary) -> tuple[LayerSummary, ...]:
        """The candidates that the user's selector picks.

        Raises:
            NotApplicable: the model has no layer of a fitting kind.
            SelectorMatchedNothing: it has, but the selector matches none.
        """
        candidates = self.candidates(model)
        if not candidates:
            raise self._nothing_fits(model)
        try:
            return self.layers.select(candidates)
        except SelectorMatchedNothing as error:
            raise self._explained(error, model) from error

    def idle(self, model: ModelSummary) -> str | None:
        """Why the step leaves an already quantized model as it is, as a sentence; None where it works on it."""
        return None

    def _nothing_fits(self, model: ModelSummary) -> NotApplicable:
        for layer in model.layers:
            reason = nonfinite(layer)
            if reason is not None and self.unfit(layer) == reason:
                return NotApplicable(
                    f"{self.method} cannot work on {layer.name!r}: it {reason}, and no other layer fits",
                    where=layer.broken,
                    hint="repair the model: a training that diverged leaves such weights",
                )
        kinds = ", ".join(sorted(self.op_types)) if self.op_types else "float weights"
        found = ", ".join(sorted({layer.op_type for layer in model.layers})) or "none"
        return NotApplicable(
            f"{self.method} works on layers with {kinds}; this model has none that still hold floats",
            hint=f"layers with weights in this model: {found}",
        )

    def _explained(self, error: SelectorMatchedNothing, model: ModelSummary) -> CompressionError:
        """The same refusal with the true reason, where the pattern names layers that exist but do not fit."""
        for layer in model.layers:
            reason = self.unfit(layer) if error.where and matches(error.where, layer) else None
            if reason is not None:
                return NotApplicable(
                    f"{self.method} cannot work on {layer.name!r}: it {reason}",
                    where=error.where,
                    hint=error.hint,
                )
        return error

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        """What the step would do, told from summaries alone: no model is opened.

        `models` has the step's other models by id. The default finds the touched layers, asks `after` how they
        would look, and checks that data roles and other models are there.
        """
        problems = [*self.data_problems(data), *self.model_problems(models)]
        touched: tuple[LayerSummary, ...] = ()
        idle = self.idle(model) if model.quantized else None
        try:
            touched = () if idle else self.selected(model)
        except CompressionError as error:
            problems.append(Problem.of(error))
        return Forecast(
            layers=tuple(layer.name for layer in touched),
            model_after=model.with_layers(self.after(layer) for layer in touched),
            problems=tuple(problems),
            warnings=(Problem(code="nothing_to_gain", message=idle),) if idle else (),
            peak_memory_bytes=3 * model.size_bytes + 200_000_000,
            seconds=self.seconds(model, data),
        )

    def after(self, layer: LayerSummary) -> LayerSummary:
        """How a touched layer is expected to look afterwards; the default changes nothing."""
        return layer

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        """A rough wall time of the step on one machine."""
        return 0.5 + model.weight_bytes / 100e6

    def data_problems(self, data: Mapping[Role, DatasetSummary]) -> tuple[Problem, ...]:
        missing = [
            Problem(
                code="data_missing",
                message=f"{self.method} needs {role} data and the job names none",
                where=f"data.{role}",
                hint=f'upload a dataset and give its id as "data": {{"{role}": "dst_..."}}',
            )
            for role in sorted(self.needs)
            if role not in data
        ]
        unlabelled = [
            Problem(
                code="data_missing",
                message=f"{self.method} needs labels; the {role} dataset has no array named 'labels'",
                where=f"data.{role}",
                hint="add an array named 'labels' with one entry per sample",
            )
            for role in sorted(self.needs)
            if self.needs_labels and role in data and not data[role].labelled
        ]
        return (*missing, *unlabelled)

    def model_problems(self, models: Mapping[str, ModelSummary]) -> tuple[Problem, ...]:
        return tuple(
            Problem(
                code="model_missing",
                message=f"{self.method} names the model {id}, which was not given",
                hint="give the file of each model that a step names",
            )
            for id in self.other_models()
            if id not in models
        )

    @abstractmethod
    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        """Do the step.

        `model` has passed `compression.graph.load`: layers have unique names and the method owns the
        object: it may change it in place. Inputs and outputs (names, dtypes, dynamic axes) must come out
        as they went in; the pipeline checks that, and that onnxruntime loads the result.

        Raises:
            CompressionError: the step cannot be done on this model, with the reason.
        """


def nonfinite(layer: LayerSummary) -> str | None:
    """Why no method works on a layer whose numbers are not all finite, as the end of a sentence."""
    return None if layer.broken is None else f"holds NaN or infinity in {layer.broken!r}"


def _names_models(declared: Any) -> bool:
    """Whether a field, or a part of its type, is an `OtherModel`."""
    marks = (*getattr(declared, "metadata", ()), *getattr(declared, "__metadata__", ()))
    parts = (getattr(declared, "annotation", None), *get_args(declared))
    return any(isinstance(mark, _AnotherModel) for mark in marks) or any(
        _names_models(part) for part in parts if part is not None
    )
