"""A step's other models reach it, and its result is kept under their hashes. The child runs in this process."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest

from compression.graph import load
from compression.method import StepContext, StepOutcome
from compression.methods.optimize_graph import OptimizeGraph
from db.blobs import object_key
from db.models import Job, JobState
from db.settings import Settings
from tests.worker.models import save_mlp
from tests.worker.workplace import Workplace, workplace
from worker import child
from worker.runner import run_job
from worker.services import Services

STEPS = [{"method": "prune_magnitude", "sparsity": 0.5}, {"method": "optimize_graph"}]


class Channel:
    """What a child would send, heard at once."""

    timing = nullcontext

    def __init__(self, on_event: Any) -> None:
        self._on_event = on_event

    def event(self, event: Mapping[str, Any]) -> None:
        self._on_event(json.loads(json.dumps(event)))


class OpenSandbox:
    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)

    def run(self, entry: str, folder: Path, request: Any, *, on_event: Any, **_: Any) -> Mapping[str, Any]:
        assert entry == child.RUN_PIPELINE
        return child.run_pipeline(folder, json.loads(json.dumps(request)), cast("Any", Channel(on_event)))


@pytest.fixture
def place(tmp_path: Path, sqlite_url: str, broker_url: str) -> Iterator[Workplace]:
    with workplace(Settings(data=tmp_path, database_url=sqlite_url, broker_url=broker_url)) as place:
        yield place


def services_of(place: Workplace) -> Services:
    parts = {name: getattr(place, name) for name in ("settings", "database", "store", "bell")}
    return cast(
        "Services",
        SimpleNamespace(**parts, sandbox=OpenSandbox(), worker_id="here", threads=1, stopping=Event()),
    )


def take_weights(self: OptimizeGraph, model: Any, context: StepContext) -> StepOutcome:
    (path,) = context.models.values()
    other = load(path)
    for name, value in model.graph.initializers.items():
        value.const_value = other.graph.initializers[name].const_value
    return StepOutcome(model=model, layers=())


def run(place: Workplace, model: str, other: str, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(OptimizeGraph, "apply", take_weights)
    monkeypatch.setattr(OptimizeGraph, "other_models", lambda self: (other,))
    monkeypatch.setattr("compression.outputs._link", shutil.copyfile)  # A real child may make no links.
    job_id = place.submit(model, STEPS, models=[other], ring=False)
    run_job(services_of(place), job_id)
    job = place.job(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    return job


def output(place: Workplace, job: Job, name: str) -> bytes:
    (artifact,) = [artifact for artifact in job.artifacts if artifact.name == name]
    return b"".join(place.store.open_range(object_key(place.project_id, artifact.sha256)))


def test_they_are_fetched_handed_over_and_noted(place, tmp_path, monkeypatch):
    model = place.ready(save_mlp(tmp_path / "model.onnx"))
    teacher, same, another = (
        place.ready(save_mlp(tmp_path / f"{name}.onnx", seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert teacher == same, "the same bytes are the same model"
    first = run(place, model, teacher, monkeypatch)
    expected = load(tmp_path / "a.onnx").graph.initializers
    (tmp_path / "made.onnx").write_bytes(output(place, first, "model.onnx"))
    made = load(tmp_path / "made.onnx").graph.initializers
    assert all(made[name].const_value.tobytes() == expected[name].const_value.tobytes() for name in expected)
    recipe = json.loads(output(place, first, "recipe.json"))
    assert recipe["made_with"]["models_sha256"] == {teacher: place.asset(teacher).sha256}

    assert [step.cached for step in run(place, model, teacher, monkeypatch).steps] == [True, True]
    other = run(place, model, another, monkeypatch)
    assert [step.cached for step in other.steps] == [True, False]
    assert output(place, other, "model.onnx") != output(place, first, "model.onnx")
