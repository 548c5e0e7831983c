"""What must not cost a job: killed workers, a lost broker, a lost message, a shutdown, a late result."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from db import jobs
from db.clock import utcnow
from db.events import list_events
from db.models import Job, JobState, StepState
from db.settings import Settings
from tests.servers import Valkey, running
from tests.worker.models import save_mlp
from tests.worker.workplace import Workplace, workplace
from worker.machine import process_family

QUICK = {"lease_s": 3.0, "heartbeat_s": 0.5, "sweep_s": 0.5, "ring_again_s": 1.0, "cancel_grace_s": 2.0}
STEPS = [{"method": "prune_magnitude", "sparsity": 0.05 * (1 + index)} for index in range(8)]


@pytest.fixture
def place(tmp_path: Path, sqlite_url: str, broker_url: str) -> Iterator[Workplace]:
    settings = Settings(data=tmp_path, database_url=sqlite_url, broker_url=broker_url, **QUICK)
    with workplace(settings) as place:
        yield place


@pytest.fixture
def model(place: Workplace, tmp_path: Path) -> str:
    """Large enough that a step takes a good part of a second."""
    return place.ready(save_mlp(tmp_path / "mlp.onnx", width=640, depth=6))


def in_step(index: int):
    return lambda job: job.state is JobState.RUNNING and (job.step or 0) >= index


def steps_run(place: Workplace, job_id: str) -> list[int]:
    """Indices of the steps as they were started, over all attempts."""
    with place.database.read() as s:
        events = list_events(s, job_id, limit=10_000)
    return [
        event.data["index"] for event in events if event.type == "step" and event.data["state"] == "running"
    ]


def gone(pids: list[int], within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return not alive


def test_a_killed_workers_job_goes_on_from_its_last_finished_step(place, model):
    worker = place.start_worker()
    job_id = place.submit(model, STEPS)
    place.wait_for(job_id, in_step(3))
    family = process_family(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert gone(family[1:]), "the sandbox outlived its worker"
    done = {step.index: step.finished_at for step in place.job(job_id).steps if step.state is StepState.DONE}
    assert len(done) >= 2
    place.start_worker()
    job = place.finished(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.attempt == 2
    assert {index: job.steps[index].finished_at for index in done} == done
    started = steps_run(place, job_id)
    assert all(started.count(index) == 1 for index in done)
    assert max(started.count(index) for index in range(len(STEPS))) <= 2
    deadline = time.monotonic() + 5
    while len(list(place.settings.work_folder.iterdir())) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(list(place.settings.work_folder.iterdir())) == 1, "the dead worker's folder is still there"


def test_a_job_whose_workers_all_die_is_poison(place, model):
    settings = place.settings.model_copy(update={"max_attempts": 1})
    worker = place.start_worker()
    job_id = place.submit(model, STEPS)
    place.wait_for(job_id, in_step(1))
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    with place.database.transaction() as s:
        jobs.lost(s, utcnow() + timedelta(seconds=60), settings)
    job = place.job(job_id)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "poison")


def test_jobs_survive_a_flushed_broker(place, tmp_path, valkey: Valkey):
    small = place.ready(save_mlp(tmp_path / "small.onnx"))
    waiting = [place.submit(small, STEPS[:1]), place.submit(small, STEPS[1:2])]
    valkey.flush()
    place.start_worker()
    waiting.append(place.submit(small, STEPS[2:3]))
    states = [place.finished(job_id).state for job_id in waiting]
    assert states == [JobState.SUCCEEDED] * 3


def test_a_backlog_gets_no_further_messages_and_is_taken_without_pauses(place, tmp_path, valkey: Valkey):
    """Each sweep of a worker sees jobs that wait for longer than `ring_again_s`."""
    small, slow = place.ready(save_mlp(tmp_path / "small.onnx")), tmp_path / "slow.onnx"
    place.start_worker()
    first = place.submit(place.ready(save_mlp(slow, width=640, depth=6)), STEPS)
    place.wait_for(first, in_step(0))
    waiting = [place.submit(small, STEPS[:1]) for _ in range(40)]
    for job_id in waiting:
        place.cancel(job_id)
    waiting = [place.submit(small, STEPS[:1]) for _ in range(3)]
    time.sleep(3 * QUICK["ring_again_s"])
    with valkey.client() as client:
        assert client.llen("cpu") <= 43
    assert all(place.finished(job_id).state is JobState.SUCCEEDED for job_id in (first, *waiting))
    assert place.logs().count("job_not_claimed") == 40


def test_a_job_that_was_committed_but_never_rung_for_runs(place, tmp_path):
    small = place.ready(save_mlp(tmp_path / "small.onnx"))
    asset_id = place.upload(save_mlp(tmp_path / "other.onnx", seed=1), ring=False)
    place.start_worker()
    place.start_worker("inspections")
    job_id = place.submit(small, STEPS[:1], ring=False)
    assert place.finished(job_id).state is JobState.SUCCEEDED
    assert place.inspected(asset_id).summary


def test_a_running_job_is_cancelled(place, model):
    place.start_worker()
    job_id = place.submit(model, STEPS)
    place.wait_for(job_id, in_step(1))
    place.cancel(job_id)
    began = time.monotonic()
    job = place.finished(job_id)
    assert job.state is JobState.CANCELLED
    assert time.monotonic() - began < 8
    assert job.steps[0].state is StepState.DONE
    assert job.artifacts == []


def test_a_job_is_given_back_when_its_worker_is_told_to_end(place, model):
    worker = place.start_worker()
    job_id = place.submit(model, STEPS)
    place.wait_for(job_id, in_step(2))
    family = process_family(worker.pid)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0, place.logs()
    assert gone(family)
    job = place.job(job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert job.steps[0].state is StepState.DONE
    assert not list(place.settings.work_folder.iterdir())
    place.start_worker()
    assert place.finished(job_id).state is JobState.SUCCEEDED
    assert steps_run(place, job_id).count(0) == 1


def test_a_worker_that_lost_its_lease_keeps_nothing(place, model):
    worker = place.start_worker()
    job_id = place.submit(model, STEPS)
    first = place.wait_for(job_id, in_step(1))
    with place.database.transaction() as s:
        s.connection()  # Takes the write lock: a worker stopped while it writes would keep it from us.
        worker.send_signal(signal.SIGSTOP)
        jobs.lost(s, utcnow() + timedelta(seconds=60), place.settings)
        claimed = jobs.claim(s, job_id, worker="another", lease_s=600, max_attempts=3)
    assert isinstance(claimed, Job)
    worker.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 20
    while '"reason": "lost"' not in (logs := place.logs()):
        assert time.monotonic() < deadline, logs
        time.sleep(0.1)
    job = place.job(job_id)
    assert job.token == claimed.token != first.token
    assert job.state is JobState.RUNNING
    assert (job.artifacts, job.measurements) == ([], None)


def test_the_death_of_the_warm_parent_costs_a_job_nothing(place, model):
    worker = place.start_worker()
    job_id = place.submit(model, STEPS)
    place.wait_for(job_id, in_step(2))
    os.kill(process_family(worker.pid)[1], signal.SIGKILL)
    job = place.finished(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.attempt == 1
    assert steps_run(place, job_id).count(0) == 1


def test_a_cuda_worker_without_a_device_says_so(place):
    worker = place.start_worker("cuda")
    if worker.wait(60) == 0:
        pytest.skip("this machine has a CUDA device")
    assert "no CUDA device" in place.logs()


@pytest.mark.slow
def test_jobs_survive_a_broker_that_is_started_again(tmp_path, sqlite_url):
    with running(Valkey(tmp_path / "first")) as first:
        settings = Settings(data=tmp_path, database_url=sqlite_url, broker_url=first.url, **QUICK)
        with workplace(settings) as place:
            worker = place.start_worker()
            model = place.ready(save_mlp(tmp_path / "mlp.onnx", width=512, depth=6))
            running_job = place.submit(model, STEPS)
            place.wait_for(running_job, in_step(1))
            first.stop()
            unheard = place.submit(model, STEPS[:1])
            with running(Valkey(tmp_path / "second", first.port)):
                assert place.finished(running_job).state is JobState.SUCCEEDED
                assert place.finished(unheard).state is JobState.SUCCEEDED
                assert place.job(running_job).attempt == 1
                assert worker.poll() is None
                place.close()
