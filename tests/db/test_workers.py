"""Workers that report are alive."""

from datetime import timedelta

from db import workers
from db.clock import utcnow
from tests.db.conftest import House


def test_a_worker_is_alive_while_it_reports(house: House) -> None:
    now = utcnow()

    def report(worker_id: str, queue: str, seconds: float) -> None:
        with house.database.transaction() as s:
            at = now + timedelta(seconds=seconds)
            workers.report_worker(s, worker_id, queue=queue, isolation="rlimits", devices=["cpu"], now=at)

    def alive(seconds: float, queue: str | None = None) -> list[str]:
        with house.database.read() as s:
            found = workers.live_workers(s, queue, within_s=60, now=now + timedelta(seconds=seconds))
            return [worker.id for worker in found]

    report("a", "cpu", 0)
    report("b", "cuda", 0)
    report("a", "cpu", 50)
    assert alive(55) == ["a", "b"]
    assert alive(55, "cuda") == ["b"]
    assert alive(100) == ["a"]
    with house.database.read() as s:
        worker = workers.live_workers(s, "cpu", within_s=1e6)[0]
    assert (worker.started_at, worker.seen_at) == (now, now + timedelta(seconds=50))
    with house.database.transaction() as s:
        workers.remove_worker(s, "a")
    assert alive(55) == ["b"]
    with house.database.transaction() as s:
        workers.remove_silent(s, silent_s=-3600)
    assert alive(55) == []
