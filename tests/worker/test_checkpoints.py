"""A worker that dies in the middle of a step costs the time since the step's last checkpoint, and no bit."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from db import jobs
from db.blobs import object_key
from db.events import list_events
from db.models import AssetKind, Job, JobCheckpoint, JobState
from db.settings import Settings
from tests.worker.long_step import ROUNDS
from tests.worker.models import save_mlp
from tests.worker.workplace import Workplace, workplace

WORKER = "tests.worker.long_step_worker"
QUICK = {"lease_s": 3.0, "heartbeat_s": 0.5, "sweep_s": 0.5, "ring_again_s": 1.0, "checkpoint_s": 0.3}
STEPS = [{"method": "prune_magnitude", "sparsity": 0.5}, {"method": "optimize_graph"}]


@pytest.fixture
def place(tmp_path: Path, service_settings: Settings) -> Iterator[Workplace]:
    with workplace(service_settings.model_copy(update=QUICK)) as place:
        yield place


@pytest.fixture
def model(place: Workplace, tmp_path: Path) -> str:
    return place.ready(save_mlp(tmp_path / "mlp.onnx"))


def checkpoint(place: Workplace, job_id: str) -> JobCheckpoint | None:
    with place.database.read() as s:
        return s.get(JobCheckpoint, job_id)


def next_checkpoint(place: Workplace, job_id: str, known: str = "") -> JobCheckpoint:
    """The first one whose content is not the known one's."""
    deadline = time.monotonic() + 60
    while (found := checkpoint(place, job_id)) is None or found.sha256 == known:
        assert time.monotonic() < deadline, f"{place.job(job_id).error}\n{place.logs()}"
        time.sleep(0.01)
    return found


def began_at(job: Job) -> int:
    outcome = job.steps[1].outcome
    assert outcome is not None
    return int(outcome["details"]["began_at"])


def result(place: Workplace, job_id: str, folder: Path) -> bytes:
    job = place.finished(job_id, 120)
    assert job.state is JobState.SUCCEEDED, job.error
    (artifact,) = [artifact for artifact in job.artifacts if artifact.name == "model.onnx"]
    place.store.get(object_key(place.project_id, artifact.sha256), folder / "result.onnx")
    return (folder / "result.onnx").read_bytes()


def forget_results(place: Workplace) -> None:
    """So that the same step runs again."""
    from db.step_results import prune_step_results

    with place.database.transaction() as s:
        prune_step_results(s, place.store, place.project_id, max_bytes=0, max_entries=0)


def run_killed(place: Workplace, program: str, *request: Any, **options: Any) -> str:
    """A job whose first worker was killed once it had saved what it had told of; its second one ends it."""
    worker = place.start_worker(program=program)
    job_id = place.submit(*request, **options)
    first = next_checkpoint(place, job_id)
    told = place.wait_for(job_id, lambda job: job.fraction > 0).fraction
    known = checkpoint(place, job_id) or first
    saved = next_checkpoint(place, job_id, known.sha256)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    place.start_worker(program=program)
    job = place.finished(job_id, 120)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2), job.error
    assert checkpoint(place, job_id) is None
    assert not place.store.exists(object_key(place.project_id, saved.sha256))
    assert resumed_at(place, job_id) >= told > 0
    return job_id


def resumed_at(place: Workplace, job_id: str) -> float:
    """The share of the job that was done when the second attempt first told of its step's progress."""
    with place.database.read() as s:
        events = list_events(s, job_id, limit=10_000)
    (_, second) = [
        event.id for event in events if event.data.get("state") == "running" and event.type == "state"
    ]
    told = [event.data for event in events if event.type == "progress" and event.id > second]
    return next(data["fraction"] for data in told if not data["message"].startswith("starting"))


def test_a_killed_workers_step_goes_on_from_its_checkpoint(place, model, tmp_path):
    killed = run_killed(place, WORKER, model, STEPS)
    assert 0 < began_at(place.job(killed)) < ROUNDS
    forget_results(place)
    undisturbed = place.submit(model, STEPS)
    assert result(place, undisturbed, tmp_path) == result(place, killed, tmp_path)
    assert began_at(place.job(undisturbed)) == 0


@pytest.mark.parametrize("service_settings", ["embedded"], indirect=True)
def test_training_that_was_killed_ends_with_the_same_weights(place, model, tmp_path):
    """As those of an undisturbed run, bit for bit, and they are not those it began with."""
    data = {"training": place.ready(save_labelled(tmp_path / "train.npz"), AssetKind.DATASET)}
    steps = [{"method": "finetune", "epochs": 32, "batch_size": 16}]
    killed = run_killed(place, "worker", model, steps, data=data)
    forget_results(place)
    undisturbed = place.submit(model, steps, data=data)
    trained = result(place, undisturbed, tmp_path)
    assert trained == result(place, killed, tmp_path)
    assert weights(trained) != weights((tmp_path / "mlp.onnx").read_bytes())


def weights(model: bytes) -> dict[str, bytes]:
    stored = onnx.load_from_string(model).graph.initializer
    return {tensor.name: onnx.numpy_helper.to_array(tensor).tobytes() for tensor in stored}


def save_labelled(path: Path, *, width: int = 32, count: int = 512) -> Path:
    random = np.random.default_rng(1)
    x = random.normal(size=(count, width)).astype(np.float32)
    np.savez(path, x=x, labels=x.argmax(axis=1))
    return path


@pytest.mark.parametrize("service_settings", ["embedded"], indirect=True)
def test_a_repeated_job_goes_on_from_the_cancelled_ones_checkpoint(place, model):
    place.start_worker(program=WORKER)
    job_id = place.submit(model, STEPS)
    next_checkpoint(place, job_id)
    place.cancel(job_id)
    assert place.finished(job_id).state is JobState.CANCELLED
    with place.database.transaction() as s:
        again = jobs.retry(s, place.project_id, job_id)
    place.bell.ring_job(again.id, again.queue)
    job = place.finished(again.id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert began_at(job) > 0
    assert checkpoint(place, job_id) is None
