"""Many claimers at once: threads that share an engine, and processes that share nothing but the database."""

import contextlib
import multiprocessing
import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import update

from db import assets, jobs, step_results
from db.blobs import object_key
from db.clock import utcnow
from db.errors import AssetInUse, NotFound, ObjectMissing, StateError
from db.models import Asset, AssetKind, Job, JobState, Project
from db.session import Database
from db.settings import Settings
from tests.db.conftest import House


def claim_all(settings: Settings, ids: list[str], worker: str) -> list[str]:
    """Claims in an order of its own; returns what it got."""
    database = Database(settings)
    won = []
    for job_id in random.Random(worker).sample(ids, len(ids)):
        with database.transaction() as s:
            if isinstance(jobs.claim(s, job_id, worker=worker, lease_s=60, max_attempts=3), Job):
                won.append(job_id)
    database.close()
    return won


def limit_running(house: House, limit: int) -> None:
    with house.database.transaction() as s:
        s.execute(update(Project).values(max_running_jobs=limit))


def test_each_job_is_claimed_by_exactly_one_of_many_threads(house: House) -> None:
    limit_running(house, 1000)
    model = house.ready()
    ids = [house.submit(model).id for _ in range(20)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: claim_all(house.settings, ids, f"t{number}"), range(8)))
    assert Counter(job_id for share in won for job_id in share) == Counter(ids)
    for job_id in ids:
        with house.database.read() as s:
            assert jobs.get_job(s, house.project.id, job_id).attempt == 1


def test_each_job_is_claimed_by_exactly_one_of_many_processes(house: House) -> None:
    limit_running(house, 1000)
    model = house.ready()
    ids = [house.submit(model).id for _ in range(20)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        shares = pool.starmap(claim_all, [(house.settings, ids, f"p{n}") for n in range(4)], chunksize=1)
    assert Counter(job_id for share in shares for job_id in share) == Counter(ids)


def test_claimers_at_once_never_run_more_than_the_project_may(house: House) -> None:
    limit_running(house, 3)
    model = house.ready()
    ids = [house.submit(model).id for _ in range(12)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: claim_all(house.settings, ids, f"t{number}"), range(8)))
    assert sum(map(len, won)) == 3


def test_a_takeover_race_leaves_one_owner(house: House) -> None:
    """Sweepers, the silent worker and new claimers all act on a job whose lease has just ended."""
    job = house.submit()
    token = house.claim(job).token or ""
    later = utcnow() + timedelta(seconds=31)

    def act(number: int) -> object:
        with house.database.transaction() as s:
            if number % 3 == 0:
                return jobs.lost(s, later, house.settings)
            if number % 3 == 1:
                return jobs.claim(s, job.id, worker=f"w{number}", lease_s=60, max_attempts=9, now=later)
            return jobs.heartbeat(s, job.id, token, 60, later)

    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(act, range(24)))
    claims = [result for result in results if isinstance(result, Job)]
    final = house.row(job)
    if claims:
        assert (final.state, final.token, final.attempt) == (JobState.RUNNING, claims[-1].token, 2)
        assert len(claims) == 1
        with house.database.transaction() as s:
            assert jobs.heartbeat(s, job.id, token, 60) is None
    else:
        assert final.state in (JobState.QUEUED, JobState.RUNNING)
        assert final.attempt == 1


def test_cancel_and_claim_and_finish_at_once_end_in_one_state(house: House) -> None:
    model = house.ready()
    for _ in range(6):
        job = house.submit(model)

        def work(job: Job = job) -> None:
            claimed = house.try_claim(job)
            if isinstance(claimed, Job):
                with house.database.transaction() as s:
                    jobs.succeed(s, house.store, job.id, claimed.token or "", measurements={}, artifacts=[])

        def cancel(job: Job = job) -> None:
            with contextlib.suppress(StateError), house.database.transaction() as s:
                jobs.request_cancel(s, house.project.id, job.id)

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(work), pool.submit(cancel)]:
                done.result()
        final = house.row(job)
        assert final.state in (JobState.SUCCEEDED, JobState.CANCELLED)
        assert (final.measurements is not None) == (final.state is JobState.SUCCEEDED)


def test_submitting_and_deleting_at_once_never_leaves_a_job_without_its_model(house: House) -> None:
    for number in range(8):
        model = house.ready(b"model %d" % number)

        def submit(model: Asset = model) -> None:
            with contextlib.suppress(NotFound):
                house.submit(model)

        def delete(model: Asset = model) -> None:
            with contextlib.suppress(AssetInUse), house.database.transaction() as s:
                assets.delete_asset(s, house.store, house.project.id, AssetKind.MODEL, model.id)

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(submit), pool.submit(delete)]:
                done.result()
        with house.database.read() as s:
            live = jobs.list_jobs(s, house.project.id, model_id=model.id)[0]
        assert house.has(b"model %d" % number) == bool(live)


def test_bytes_uploaded_while_they_are_deleted_are_there_or_refused(house: House) -> None:
    """The same bytes come and go at once; whenever a row names them, they are stored."""
    content = b"contested"

    def come_and_go(_: int) -> None:
        time.sleep(random.random() / 100)
        try:
            asset = house.add(content)
        except ObjectMissing:
            return
        with contextlib.suppress(NotFound), house.database.transaction() as s:
            assets.delete_asset(s, house.store, house.project.id, AssetKind.MODEL, asset.id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(60)))
    try:
        asset = house.add(content)
    except ObjectMissing:
        pytest.fail("nobody deletes any more")
    assert b"".join(house.store.open_range(object_key(house.project.id, asset.sha256))) == content


def test_the_same_upload_many_times_at_once_is_one_asset(house: House) -> None:
    content = os.urandom(1000)
    with ThreadPoolExecutor(8) as pool:
        made = {asset.id for asset in pool.map(lambda _: house.add(content), range(16))}
    assert len(made) == 1


def test_the_same_step_kept_many_times_at_once_is_one_result(house: House) -> None:
    sha256 = house.keep(b"step")
    part = step_results.StepFile(name="model.onnx", sha256=sha256, size_bytes=4)

    def keep(_: int) -> None:
        with house.database.transaction() as s:
            step_results.store_step_result(
                s, house.store, house.project.id, "k" * 64, files=[part], outcome={"layers": []}
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, range(16)))
    with house.database.transaction() as s:
        found = step_results.find_step_result(s, house.project.id, "k" * 64)
        assert found is not None
        assert [kept.name for kept in found.files] == ["model.onnx"]
