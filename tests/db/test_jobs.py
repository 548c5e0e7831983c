"""Every transition of the table in `db.jobs`, and what stale or forbidden ones leave: nothing."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from db import artifacts, assets, events, jobs, projects
from db.clock import utcnow
from db.errors import AssetNotReady, Conflict, JobFinished, NotFound, QuotaExceeded
from db.models import AssetKind, Job, JobState, Project, StepState
from tests.db.conftest import House

ERROR = {"code": "result_rejected", "message": "m", "where": None, "hint": None, "retryable": False}


def token_of(job: Job) -> str:
    assert job.token is not None
    return job.token


def states(house: House, job: Job) -> list[str]:
    """As the events tell it."""
    with house.database.read() as s:
        return [event.data["state"] for event in events.list_events(s, job.id) if event.type == "state"]


def request_cancel(house: House, job: Job) -> Job:
    with house.database.transaction() as s:
        return jobs.request_cancel(s, house.project.id, job.id)


def lost(house: House, seconds: float, backlogged: tuple[str, ...] = (), **settings: Any) -> list[str]:
    now = utcnow() + timedelta(seconds=seconds)
    with house.database.transaction() as s:
        given = house.settings.model_copy(update=settings)
        return [waiting.job_id for waiting in jobs.lost(s, now, given, backlogged=backlogged)]


def test_a_job_from_submission_to_success(house: House) -> None:
    job = house.submit()
    assert (job.state, job.attempt, job.token, job.started_at) == (JobState.QUEUED, 0, None, None)
    claimed = house.claim(job)
    assert (claimed.state, claimed.attempt, claimed.worker) == (JobState.RUNNING, 1, "w1")
    token = token_of(claimed)
    artifact = artifacts.NewArtifact(
        name="report.json", media_type="x/y", sha256=house.keep(b"r"), size_bytes=1
    )
    with house.database.transaction() as s:
        assert jobs.start_step(s, job.id, token, 0)
        assert jobs.progress(s, job.id, token, step=0, fraction=0.25, message="first", eta_s=9)
        assert jobs.finish_step(s, job.id, token, 0, seconds=1.5, outcome={"layers": 3})
        assert jobs.finish_step(s, job.id, token, 1, seconds=0.0, outcome={"layers": 4}, cached=True)
        assert jobs.note(s, job.id, token, "measured")
        assert jobs.heartbeat(s, job.id, token, 30) is JobState.RUNNING
        assert jobs.succeed(s, house.store, job.id, token, measurements={"x": 1}, artifacts=[artifact])
    done = house.row(job)
    assert (done.state, done.token, done.lease_expires_at, done.eta_s) == (
        JobState.SUCCEEDED,
        None,
        None,
        None,
    )
    assert (done.fraction, done.measurements, done.error) == (1.0, {"x": 1}, None)
    assert done.finished_at is not None
    assert [(step.state, step.cached, step.outcome) for step in done.steps] == [
        (StepState.DONE, False, {"layers": 3}),
        (StepState.DONE, True, {"layers": 4}),
    ]
    assert [found.name for found in done.artifacts] == ["report.json"]
    assert states(house, job) == ["queued", "running", "succeeded"]
    with house.database.read() as s:
        kinds = [event.type for event in events.list_events(s, job.id)]
        assert kinds == ["state", "state", "step", "progress", "step", "step", "note", "state"]
        assert artifacts.get_artifact(s, house.project.id, done.artifacts[0].id).name == "report.json"
        assert len(artifacts.list_artifacts(s, house.project.id, job.id)) == 1
        with pytest.raises(NotFound):
            artifacts.get_artifact(s, "prj_other", done.artifacts[0].id)
        with pytest.raises(NotFound):
            artifacts.list_artifacts(s, "prj_other", job.id)


def test_a_stale_token_writes_nothing(house: House) -> None:
    job = house.submit()
    stale = token_of(house.claim(job))
    lost(house, 31)
    fresh = house.claim(job, worker="w2")
    before, told = house.row(job), states(house, job)
    artifact = artifacts.NewArtifact(name="x", media_type="x/y", sha256=house.keep(b"x"), size_bytes=1)
    with house.database.transaction() as s:
        assert jobs.heartbeat(s, job.id, stale, 1000) is None
        assert not jobs.start_step(s, job.id, stale, 0)
        assert not jobs.finish_step(s, job.id, stale, 0, seconds=1, outcome={})
        assert not jobs.progress(s, job.id, stale, step=0, fraction=0.9)
        assert not jobs.note(s, job.id, stale, "hello")
        assert not jobs.keep_artifacts(s, house.store, job.id, stale, [artifact])
        assert not jobs.succeed(s, house.store, job.id, stale, measurements={}, artifacts=[artifact])
        assert not jobs.fail(s, job.id, stale, ERROR)
        assert not jobs.cancelled(s, job.id, stale)
        assert not jobs.release(s, job.id, stale)
    after = house.row(job)
    for field in ("state", "attempt", "token", "lease_expires_at", "fraction", "message", "step", "error"):
        assert getattr(after, field) == getattr(before, field)
    assert after.artifacts == []
    assert after.token == fresh.token
    assert states(house, job) == told
    with house.database.read() as s:
        assert projects.stored_bytes(s, house.project.id) == len(b"model")


@pytest.mark.parametrize("end", ["succeed", "fail", "cancelled", "release"])
def test_nothing_changes_a_final_job(house: House, end: str) -> None:
    job = house.submit()
    token = token_of(house.claim(job))
    with house.database.transaction() as s:
        assert jobs.fail(s, job.id, token, ERROR)
    with house.database.transaction() as s:
        arguments: dict[str, Any] = {"succeed": (house.store, job.id, token), "fail": (job.id, token, ERROR)}
        more = {"measurements": {}, "artifacts": []} if end == "succeed" else {}
        assert not getattr(jobs, end)(s, *arguments.get(end, (job.id, token)), **more)
    with pytest.raises(JobFinished):
        request_cancel(house, job)
    assert house.try_claim(job) is jobs.NotClaimed.NOT_QUEUED
    lost(house, 10**8)
    assert states(house, job) == ["queued", "running", "failed"]
    assert house.row(job).error == ERROR


def test_a_failed_step_is_marked_and_finished_ones_stay(house: House) -> None:
    job = house.submit()
    token = token_of(house.claim(job))
    with house.database.transaction() as s:
        jobs.finish_step(s, job.id, token, 0, seconds=1, outcome={"kept": True})
        jobs.start_step(s, job.id, token, 1)
        partial = artifacts.NewArtifact(
            name="steps.json", media_type="x/y", sha256=house.keep(b"x"), size_bytes=1
        )
        assert jobs.keep_artifacts(s, house.store, job.id, token, [partial])
        assert jobs.fail(s, job.id, token, ERROR)
    failed = house.row(job)
    assert [step.state for step in failed.steps] == [StepState.DONE, StepState.FAILED]
    assert [found.name for found in failed.artifacts] == ["steps.json"]


def test_progress_tells_every_percent_once(house: House) -> None:
    job = house.submit()
    token = token_of(house.claim(job))
    for part in range(1000):
        with house.database.transaction() as s:
            assert jobs.progress(s, job.id, token, step=0, fraction=part / 1000, message=str(part))
    with house.database.read() as s:
        told = [event for event in events.list_events(s, job.id, limit=5000) if event.type == "progress"]
    assert 99 <= len(told) <= 101
    assert house.row(job).message == "999"


def test_a_queued_job_is_cancelled_at_once(house: House) -> None:
    job = house.submit()
    cancelled = request_cancel(house, job)
    assert cancelled.state is JobState.CANCELLED
    assert cancelled.finished_at == cancelled.cancel_requested_at
    with pytest.raises(JobFinished):
        request_cancel(house, job)
    assert house.try_claim(job) is jobs.NotClaimed.NOT_QUEUED


def test_a_running_job_is_asked_to_stop_and_learns_it_at_its_heartbeat(house: House) -> None:
    job = house.submit()
    token = token_of(house.claim(job))
    first, again = request_cancel(house, job), request_cancel(house, job)
    assert first.state is again.state is JobState.CANCELLING
    assert first.cancel_requested_at == again.cancel_requested_at
    with house.database.transaction() as s:
        assert jobs.heartbeat(s, job.id, token, 30) is JobState.CANCELLING
        assert jobs.cancelled(s, job.id, token)
    assert states(house, job) == ["queued", "running", "cancelling", "cancelled"]


def test_a_result_that_comes_after_the_cancel_is_not_kept(house: House) -> None:
    job = house.submit()
    token = token_of(house.claim(job))
    request_cancel(house, job)
    with house.database.transaction() as s:
        assert not jobs.succeed(s, house.store, job.id, token, measurements={"x": 1}, artifacts=[])
    done = house.row(job)
    assert (done.state, done.measurements) == (JobState.CANCELLED, None)


def test_releasing_gives_the_attempt_back_and_keeps_finished_steps(house: House) -> None:
    job = house.submit()
    now = utcnow()
    claimed = house.claim(job, now=now)
    with house.database.transaction() as s:
        jobs.finish_step(s, job.id, token_of(claimed), 0, seconds=1, outcome={})
        jobs.start_step(s, job.id, token_of(claimed), 1)
        assert jobs.release(s, job.id, token_of(claimed), now + timedelta(seconds=100))
    back = house.row(job)
    assert (back.state, back.attempt, back.token) == (JobState.QUEUED, 0, None)
    assert [step.state for step in back.steps] == [StepState.DONE, StepState.PENDING]
    assert back.ran_s == pytest.approx(100)
    assert house.claim(job).started_at == claimed.started_at


def test_releasing_a_cancelling_job_cancels_it(house: House) -> None:
    job = house.submit()
    token = token_of(house.claim(job))
    request_cancel(house, job)
    with house.database.transaction() as s:
        assert jobs.release(s, job.id, token)
    assert house.row(job).state is JobState.CANCELLED


def test_time_in_the_queue_does_not_count_towards_the_time_limit(house: House) -> None:
    job, now = house.submit(time_limit_s=100.0), utcnow()
    first = house.claim(job, now=now + timedelta(hours=5))
    assert jobs.time_left_s(first, now + timedelta(hours=5)) == pytest.approx(100)
    with house.database.transaction() as s:
        jobs.release(s, job.id, token_of(first), now + timedelta(hours=5, seconds=60))
    second = house.claim(job, now=now + timedelta(hours=9))
    assert jobs.time_left_s(second, now + timedelta(hours=9, seconds=10)) == pytest.approx(30)


def test_a_dead_worker_s_job_goes_on_until_its_attempts_are_used_up(house: House) -> None:
    job = house.submit()
    claimed = house.claim(job)
    with house.database.transaction() as s:
        jobs.finish_step(s, job.id, token_of(claimed), 0, seconds=1, outcome={})
        jobs.start_step(s, job.id, token_of(claimed), 1)
    assert lost(house, 20) == []
    assert house.row(job).state is JobState.RUNNING
    assert lost(house, 31) == [job.id], "to be rung for in the same sweep"
    back = house.row(job)
    assert (back.state, back.attempt) == (JobState.QUEUED, 1)
    assert [step.state for step in back.steps] == [StepState.DONE, StepState.PENDING]
    for attempt in (2, 3):
        assert house.claim(job).attempt == attempt
        lost(house, 31)
    failed = house.row(job)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert (failed.error["code"], failed.error["retryable"]) == ("poison", False)


def test_a_claim_fails_a_job_whose_attempts_are_used_up(house: House) -> None:
    job = house.submit()
    house.claim(job)
    lost(house, 31)
    assert house.try_claim(job, max_attempts=1) is jobs.NotClaimed.POISON
    assert states(house, job) == ["queued", "running", "queued", "failed"]


def test_a_late_heartbeat_keeps_the_job(house: House) -> None:
    """Nobody took it over while the worker was silent, so its work is not lost."""
    job, now = house.submit(), utcnow()
    token = token_of(house.claim(job, now=now))
    with house.database.transaction() as s:
        assert jobs.heartbeat(s, job.id, token, 30, now + timedelta(seconds=60)) is JobState.RUNNING
    lost(house, 61)
    assert house.row(job).state is JobState.RUNNING


def test_a_cancelling_job_whose_worker_died_is_cancelled(house: House) -> None:
    job = house.submit()
    house.claim(job)
    request_cancel(house, job)
    lost(house, 31)
    assert house.row(job).state is JobState.CANCELLED


def test_a_dead_worker_s_job_that_used_up_its_time_fails(house: House) -> None:
    job = house.submit(time_limit_s=20.0)
    house.claim(job)
    lost(house, 31)
    failed = house.row(job)
    assert failed.error is not None
    assert (failed.state, failed.error["code"]) == (JobState.FAILED, "time_limit")


def test_a_job_that_waited_too_long_expires(house: House) -> None:
    job = house.submit()
    lost(house, 99, queue_limit_s=100)
    assert house.row(job).state is JobState.QUEUED
    lost(house, 101, queue_limit_s=100)
    expired = house.row(job)
    assert expired.error is not None
    assert (expired.state, expired.error["code"]) == (JobState.EXPIRED, "queue_limit")


def test_queued_jobs_are_rung_for_until_someone_hears(house: House) -> None:
    first, second = house.submit(), house.submit(queue="cuda")
    assert lost(house, 0) == [], "they were committed a moment ago"
    assert lost(house, 3) == [first.id, second.id]
    with house.database.transaction() as s:
        jobs.mark_rung(s, first.id)
    assert lost(house, 30) == [second.id]
    assert lost(house, 61) == [first.id, second.id]
    house.claim(second, lease_s=1000)
    assert lost(house, 61) == [first.id]


def test_jobs_whose_messages_still_wait_are_not_rung_for_over_and_over(house: House) -> None:
    first, second, third = house.submit(), house.submit(queue="cuda"), house.submit()
    with house.database.transaction() as s:
        jobs.mark_rung(s, first.id)
        jobs.mark_rung(s, second.id)
    assert lost(house, 61, backlogged=("cpu",)) == [second.id, third.id], "the third was never rung for"
    assert lost(house, 61, backlogged=("cpu", "cuda")) == [third.id]
    assert lost(house, 3601, backlogged=("cpu", "cuda")) == [first.id, second.id, third.id]


def test_a_project_runs_no_more_jobs_than_it_may(house: House) -> None:
    with house.database.transaction() as s:
        s.execute(update(Project).values(max_running_jobs=1))
    first, second, third = house.submit(), house.submit(), house.submit()
    token = token_of(house.claim(first))
    assert house.try_claim(second) is jobs.NotClaimed.PROJECT_BUSY
    assert "1 jobs" in house.row(second).message
    assert house.row(second).rung_at is None, "its message is used up"
    assert lost(house, 3) == [], "ringing for it would be in vain"
    request_cancel(house, first)
    assert house.try_claim(second) is jobs.NotClaimed.PROJECT_BUSY, "it holds its worker until it has stopped"
    with house.database.transaction() as s:
        jobs.cancelled(s, first.id, token)
        assert [waiting.job_id for waiting in jobs.next_waiting(s, house.project.id)] == [second.id]
    assert house.claim(second).message == ""
    assert house.try_claim(third) is jobs.NotClaimed.PROJECT_BUSY


def test_what_does_not_exist_is_not_claimed(house: House) -> None:
    with house.database.transaction() as s:
        found = jobs.claim(s, "job_nothing", worker="w", lease_s=30, max_attempts=3)
    assert found is jobs.NotClaimed.MISSING


def test_another_project_s_job_is_not_found(house: House) -> None:
    job = house.submit()
    with house.database.transaction() as s:
        for call in (jobs.get_job, jobs.request_cancel, jobs.retry):
            with pytest.raises(NotFound):
                call(s, "prj_other", job.id)
        assert jobs.list_jobs(s, "prj_other") == ([], None)


def test_only_ready_assets_of_the_right_kind_are_taken(house: House) -> None:
    ready, raw = house.ready(b"ready"), house.add(b"raw")
    data = house.ready(b"data", AssetKind.DATASET)
    with pytest.raises(AssetNotReady):
        house.submit(raw)
    with pytest.raises(NotFound):
        house.submit(data)
    with pytest.raises(NotFound):
        house.submit(ready, data={"calibration": ready.id})
    with house.database.transaction() as s:
        assets.delete_asset(s, house.store, house.project.id, AssetKind.MODEL, ready.id)
    with pytest.raises(NotFound):
        house.submit(ready)


def test_other_models_are_checked_and_kept_as_the_model_is(house: House) -> None:
    with house.database.transaction() as s:
        stranger = projects.ensure_project(s, "another", house.settings)
    theirs = house.add(b"theirs", project=stranger)
    refused: list[tuple[str, type[Exception]]] = [
        (house.add(b"new").id, AssetNotReady),
        (house.ready(b"data", AssetKind.DATASET).id, NotFound),
        (theirs.id, NotFound),
        ("mdl_unknown", NotFound),
    ]
    for other_id, kind in refused:
        with pytest.raises(kind):
            house.submit(models=[other_id])
    teacher = house.ready(b"teacher")
    job = house.submit(models=[teacher.id])
    with house.database.transaction() as s:
        jobs.request_cancel(s, house.project.id, job.id)
        assert jobs.retry(s, house.project.id, job.id).models == [teacher.id]


def test_the_queue_of_a_project_is_bounded(house: House) -> None:
    with house.database.transaction() as s:
        s.execute(update(Project).values(max_queued_jobs=2))
    house.submit()
    job = house.submit()
    with pytest.raises(QuotaExceeded) as refused:
        house.submit()
    assert (refused.value.quota, refused.value.limit, refused.value.used) == ("max_queued_jobs", 2, 2)
    house.claim(job)
    house.submit()


def test_a_full_project_submits_nothing(house: House) -> None:
    house.ready()
    with house.database.transaction() as s:
        s.execute(update(Project).values(max_stored_bytes=len(b"model")))
    with pytest.raises(QuotaExceeded):
        house.submit()


def test_retrying_makes_a_new_job_of_a_failed_one(house: House) -> None:
    job = house.submit(labels={"team": "vision"})
    token = token_of(house.claim(job))
    with pytest.raises(Conflict, match="running"), house.database.transaction() as s:
        jobs.retry(s, house.project.id, job.id)
    with house.database.transaction() as s:
        jobs.fail(s, job.id, token, ERROR)
        again = jobs.retry(s, house.project.id, job.id)
    assert again.id != job.id
    assert (again.state, again.retry_of, again.attempt) == (JobState.QUEUED, job.id, 0)
    assert (again.spec, again.labels) == (job.spec, job.labels)
    assert [step.method for step in again.steps] == ["a", "b"]
    assert house.row(job).state is JobState.FAILED


def test_lists_are_filtered_and_paged(house: House) -> None:
    other = house.ready(b"other")
    plain = house.submit()
    exotic = {'a"b': 'c"d', "ä.$[0]": "ö", "empty": ""}
    labelled = house.submit(other, labels={"team": "vision", **exotic})
    house.claim(plain)

    def ids(**filters: Any) -> list[str]:
        with house.database.read() as s:
            return [job.id for job in jobs.list_jobs(s, house.project.id, **filters)[0]]

    assert ids() == [labelled.id, plain.id]
    assert ids(state=JobState.RUNNING) == [plain.id]
    assert ids(model_id=other.id) == [labelled.id]
    assert ids(label=("team", "vision")) == [labelled.id]
    for label in exotic.items():
        assert ids(label=label) == [labelled.id]
    assert ids(label=("team", "audio")) == ids(label=("none", "")) == []
    with house.database.read() as s:
        page, cursor = jobs.list_jobs(s, house.project.id, limit=1)
        rest, end = jobs.list_jobs(s, house.project.id, limit=1, cursor=cursor)
    assert ([*page, *rest][0].id, [*page, *rest][1].id, end) == (labelled.id, plain.id, None)


def test_the_position_in_the_queue_counts_the_same_queue_only(house: House) -> None:
    first, gpu, second = house.submit(), house.submit(queue="cuda"), house.submit()

    def position(job: Job) -> int | None:
        with house.database.read() as s:
            return jobs.queue_position(s, jobs.get_job(s, house.project.id, job.id))

    assert [position(job) for job in (first, gpu, second)] == [1, 1, 2]
    house.claim(first)
    assert [position(job) for job in (first, gpu, second)] == [None, 1, 1]


def test_events_are_read_on_from_the_last_one_seen(house: House) -> None:
    job = house.submit()
    house.claim(job)
    with house.database.read() as s:
        first = events.list_events(s, job.id, limit=1)
        rest = events.list_events(s, job.id, after_id=first[0].id)
    assert [event.data["state"] for event in first + rest] == ["queued", "running"]
    assert rest[0].data["worker"] == "w1"
    assert rest[0].at.tzinfo is not None
