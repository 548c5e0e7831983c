"""One checkpoint of each job: replaced, fenced, passed on, dropped, and never without its bytes."""

from datetime import timedelta

from db import jobs
from db.clock import utcnow
from db.models import Job, JobCheckpoint
from db.sweep import sweep_orphans
from tests.db.conftest import House

ERROR = {"code": "c", "message": "m", "where": None, "hint": None, "retryable": False}


def save(house: House, job: Job, content: bytes, *, token: str | None = None, step_key: str = "k1") -> bool:
    sha256 = house.keep(content)
    with house.database.transaction() as s:
        return jobs.save_checkpoint(
            s,
            house.store,
            job.id,
            token or job.token or "",
            step_key=step_key,
            sha256=sha256,
            size_bytes=len(content),
        )


def found(house: House, job: Job, step_key: str = "k1") -> JobCheckpoint | None:
    with house.database.read() as s:
        return jobs.find_checkpoint(s, job.id, step_key)


def past(house: House, after: timedelta = timedelta()) -> list[str]:
    with house.database.read() as s:
        return jobs.past_checkpoints(s, utcnow() + after)


def test_the_last_one_replaces_the_one_before(house: House) -> None:
    job = house.claim(house.submit())
    assert save(house, job, b"first")
    assert save(house, job, b"second", step_key="k2")
    checkpoint = found(house, job, "k2")
    assert checkpoint is not None
    assert checkpoint.size_bytes == len(b"second")
    assert not house.has(b"first")
    assert found(house, job, "k1") is None, "it is of another step"
    sweep_orphans(house.database, house.store, older_than_s=-60)
    assert house.has(b"second")


def test_saving_the_same_bytes_again_keeps_them(house: House) -> None:
    job = house.claim(house.submit())
    assert save(house, job, b"same")
    assert save(house, job, b"same")
    assert house.has(b"same")


def test_a_stale_attempt_saves_nothing(house: House) -> None:
    job = house.claim(house.submit())
    assert save(house, job, b"ours")
    assert not save(house, job, b"theirs", token="stale")
    assert house.has(b"ours")
    sweep_orphans(house.database, house.store, older_than_s=-60)
    assert not house.has(b"theirs")
    checkpoint = found(house, job)
    assert checkpoint is not None
    assert checkpoint.size_bytes == len(b"ours")


def test_it_outlives_a_lost_lease(house: House) -> None:
    job = house.claim(house.submit())
    save(house, job, b"kept")
    with house.database.transaction() as s:
        jobs.lost(s, utcnow() + timedelta(seconds=60), house.settings)
    again = house.claim(job)
    assert found(house, again) is not None
    assert not save(house, job, b"late", token=job.token)


def test_dropping_it_gives_up_its_bytes(house: House) -> None:
    job = house.claim(house.submit())
    save(house, job, b"gone")
    for _ in range(2):
        with house.database.transaction() as s:
            jobs.drop_checkpoint(s, house.store, job.id)
    assert found(house, job) is None
    assert not house.has(b"gone")


def test_a_repeated_job_takes_it_over(house: House) -> None:
    job = house.claim(house.submit())
    save(house, job, b"kept")
    with house.database.transaction() as s:
        jobs.fail(s, job.id, job.token or "", ERROR)
    assert past(house, timedelta(hours=23)) == [], "it may still be repeated"
    assert past(house, timedelta(hours=25)) == [job.id]
    with house.database.transaction() as s:
        again = jobs.retry(s, house.project.id, job.id)
    assert found(house, job) is None
    assert found(house, again) is not None
    assert past(house, timedelta(hours=25)) == []


def test_that_of_a_job_that_succeeded_is_past(house: House) -> None:
    job = house.claim(house.submit())
    save(house, job, b"left over")
    with house.database.transaction() as s:
        jobs.succeed(s, house.store, job.id, job.token or "", measurements={}, artifacts=[])
    assert past(house) == [job.id]
