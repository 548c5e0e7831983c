"""Jobs through a real worker process, a real broker and a real database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.models import AssetKind, AssetState, JobState, StepState
from db.settings import Settings
from tests.worker.models import save_mlp, save_samples
from tests.worker.workplace import Workplace, workplace

PRUNE = {"method": "prune_magnitude", "sparsity": 0.5}
QUANTIZE = {"method": "quantize_weights"}


@pytest.fixture
def place(tmp_path: Path, service_settings: Settings) -> Iterator[Workplace]:
    with workplace(service_settings.model_copy(update={"cancel_grace_s": 2.0, "sweep_s": 0.5})) as place:
        yield place


def test_a_job_succeeds_and_the_same_step_is_not_run_twice(place, tmp_path):
    place.start_worker()
    model = place.ready(save_mlp(tmp_path / "mlp.onnx"))
    data = {"evaluation": place.ready(save_samples(tmp_path / "x.npz"), AssetKind.DATASET)}
    job = place.finished(place.submit(model, [PRUNE, QUANTIZE], data=data))
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.measurements["compressed"]["peak_memory_bytes"] is not None
    assert [step.state for step in job.steps] == [StepState.DONE, StepState.DONE]
    assert {"model.onnx", "report.json", "recipe.json"} <= {artifact.name for artifact in job.artifacts}
    assert job.fraction == 1

    again = place.finished(place.submit(model, [PRUNE, {"method": "cast_float"}]))
    assert again.state is JobState.SUCCEEDED, again.error
    assert [step.cached for step in again.steps] == [True, False]


def test_a_model_and_a_dataset_are_inspected(place, tmp_path):
    place.start_worker("inspections")
    model = place.inspected(place.upload(save_mlp(tmp_path / "mlp.onnx")))
    assert model.state is AssetState.READY, model.error
    assert model.summary["parameters"] == 2 * 32 * 32
    data = place.inspected(place.upload(save_samples(tmp_path / "x.npz"), AssetKind.DATASET))
    assert data.state is AssetState.READY, data.error
    assert data.summary["samples"] == 64
    (tmp_path / "bad.onnx").write_bytes(b"not a model at all")
    bad = place.inspected(place.upload(tmp_path / "bad.onnx"))
    assert bad.state is AssetState.REFUSED
    assert bad.error["code"] in {"invalid_model", "unsupported_model"}


def test_a_step_that_cannot_be_done_fails_with_its_reason(place, tmp_path):
    place.start_worker()
    model = place.ready(save_mlp(tmp_path / "mlp.onnx"))
    nowhere = {**PRUNE, "layers": {"include": ["nothing-*"]}}
    job = place.finished(place.submit(model, [QUANTIZE, nowhere]))
    assert job.state is JobState.FAILED
    assert job.error["code"] in {"selector_matched_nothing", "not_applicable"}
    assert job.error["hint"]


def test_the_time_limit_does_not_count_the_queue(place, tmp_path):
    model = place.ready(save_mlp(tmp_path / "mlp.onnx", width=512, depth=6))
    steps = [PRUNE] * 15
    job_id = place.submit(model, steps, time_limit_s=0.3)
    place.start_worker()
    job = place.finished(job_id)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "time_limit")
