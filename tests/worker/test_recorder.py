"""What a child says of its checkpoints is kept where it is true, and believed no further."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from db import jobs
from db.blobs import object_key
from db.models import Job, JobCheckpoint
from db.settings import Settings
from tests.worker.models import save_mlp
from tests.worker.workplace import Workplace, workplace
from worker.failures import Failed
from worker.heart import End, Heart
from worker.recorder import Recorder
from worker.services import Services

STEPS = [{"method": "optimize_graph"}, {"method": "optimize_graph"}]


@pytest.fixture
def place(tmp_path: Path, sqlite_url: str, broker_url: str) -> Iterator[Workplace]:
    with workplace(Settings(data=tmp_path, database_url=sqlite_url, broker_url=broker_url)) as place:
        yield place


@pytest.fixture
def job(place: Workplace, tmp_path: Path) -> Job:
    job_id = place.submit(place.ready(save_mlp(tmp_path / "m.onnx")), STEPS, ring=False)
    with place.database.transaction() as s:
        claimed = jobs.claim(s, job_id, worker="w", lease_s=60, max_attempts=3)
    assert isinstance(claimed, Job)
    return claimed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    (folder / "checkpoints" / "1").mkdir(parents=True)
    return folder


def record(place: Workplace, job: Job, folder: Path, *events: dict[str, Any], token: str = "") -> Recorder:
    """Tells the events in one go, so that all are heard before the first is kept."""
    services = cast("Services", place)
    heart = Heart(services, job.id, token or job.token or "")
    job.token = token or job.token
    recorder = Recorder(services, job, heart, folder=folder, keys=["k0", "k1"], max_bytes=100)
    for event in events:
        recorder.hear(event)
    with recorder:
        pass
    return recorder


def saved(file: str, index: int = 1) -> dict[str, Any]:
    return {"type": "checkpoint_saved", "index": index, "file": file}


def kept(place: Workplace, job: Job) -> JobCheckpoint | None:
    with place.database.read() as s:
        return s.get(JobCheckpoint, job.id)


def test_of_those_that_wait_only_the_newest_is_kept(place, job, folder):
    for name in ("0", "1"):
        (folder / "checkpoints" / "1" / name).write_text(f"state {name}")
    recorder = record(place, job, folder, saved("checkpoints/1/0"), saved("checkpoints/1/1"))
    assert recorder.failure is None
    found = kept(place, job)
    assert (found.step_key, found.size_bytes) == ("k1", len("state 1"))
    stored = b"".join(place.store.open_range(object_key(place.project_id, found.sha256)))
    assert stored == b"state 1"
    assert len(list(place.store.list())) == 2, "the model and one checkpoint"


def test_one_that_is_gone_already_costs_nothing(place, job, folder):
    recorder = record(place, job, folder, saved("checkpoints/1/never"))
    assert recorder.failure is None
    assert recorder._heart.end is None
    assert kept(place, job) is None


@pytest.mark.parametrize(
    "file",
    [
        "secret",
        "../secret",
        "/etc/passwd",
        "checkpoints/0/x",
        "checkpoints/1/../../secret",
        "checkpoints/1/link",
    ],
)
def test_one_outside_its_folder_ends_the_job(place, job, folder, tmp_path, file):
    for path in (folder / "secret", tmp_path / "secret"):
        path.write_text("secret")
    (folder / "checkpoints" / "1" / "link").symlink_to(tmp_path / "secret")
    recorder = record(place, job, folder, saved(file))
    assert recorder.failure is not None
    assert recorder.failure.code in {"broken_protocol", "bad_output"}
    assert kept(place, job) is None


def test_one_that_is_too_large_ends_the_job(place, job, folder):
    (folder / "checkpoints" / "1" / "0").write_bytes(bytes(101))
    recorder = record(place, job, folder, saved("checkpoints/1/0"))
    assert recorder.failure is not None
    assert recorder.failure.code == "bad_output"


def test_one_of_a_step_that_there_is_not_is_no_event(place, job, folder):
    with pytest.raises(Failed):
        record(place, job, folder, saved("checkpoints/2/0", index=2))


def test_a_stale_attempts_is_not_kept(place, job, folder):
    (folder / "checkpoints" / "1" / "0").write_text("state")
    recorder = record(place, job, folder, saved("checkpoints/1/0"), token="stale")
    assert recorder._heart.end is End.LOST
    assert kept(place, job) is None
