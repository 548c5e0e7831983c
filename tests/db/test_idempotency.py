"""The same submission twice is one job."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from db import idempotency
from db.clock import utcnow
from db.idempotency import InProgress, Mismatch, Replay, Reserved
from tests.db.conftest import House

Answer = Reserved | Replay | Mismatch | InProgress


def reserve(house: House, fingerprint: str = "f", hours: float = 0) -> Answer:
    with house.database.transaction() as s:
        now = utcnow() + timedelta(hours=hours)
        return idempotency.reserve(s, house.project.id, "key", fingerprint, now)


def complete(house: House) -> None:
    with house.database.transaction() as s:
        idempotency.complete(s, house.project.id, "key", "job_1")


def test_a_completed_key_replays_its_job(house: House) -> None:
    assert reserve(house) == Reserved()
    assert reserve(house) == InProgress()
    complete(house)
    assert reserve(house) == Replay("job_1")
    assert reserve(house, "other body") == Mismatch()


def test_a_submission_that_fails_leaves_no_key(house: House) -> None:
    with pytest.raises(ZeroDivisionError), house.database.transaction() as s:
        idempotency.reserve(s, house.project.id, "key", "f")
        raise ZeroDivisionError
    assert reserve(house) == Reserved()
    with house.database.transaction() as s:
        idempotency.forget(s, house.project.id, "key")
    assert reserve(house, "other body") == Reserved()


def test_a_process_that_died_holds_its_key_for_five_minutes(house: House) -> None:
    reserve(house)
    assert reserve(house, hours=0.05) == InProgress()
    assert reserve(house, hours=0.1) == Reserved()


def test_a_key_is_kept_for_a_day(house: House) -> None:
    reserve(house)
    complete(house)
    assert reserve(house, hours=23.9) == Replay("job_1")
    with house.database.transaction() as s:
        assert idempotency.remove_old(s, utcnow() + timedelta(hours=23.9)) == 0
    assert reserve(house, "other body", hours=24.1) == Reserved()
    with house.database.transaction() as s:
        assert idempotency.remove_old(s, utcnow() + timedelta(hours=50)) == 1


def test_one_of_many_at_once_gets_the_key(house: House) -> None:
    def submit(_: int) -> Answer:
        with house.database.transaction() as s:
            answer = idempotency.reserve(s, house.project.id, "key", "f")
            if isinstance(answer, Reserved):
                idempotency.complete(s, house.project.id, "key", "job_1")
            return answer

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(16)))
    assert answers.count(Reserved()) == 1
    assert answers.count(Replay("job_1")) == 15
