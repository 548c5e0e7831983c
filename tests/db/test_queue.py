"""The bell on a real broker, and without one."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from db.queue import INSPECTIONS, QUEUES, Bell
from db.settings import Settings
from tests.db.conftest import House
from tests.servers import Valkey, free_port, running


@pytest.fixture
def bell(house: House, broker_url: str) -> Iterator[Bell]:
    bell = Bell(house.settings.model_copy(update={"broker_url": broker_url}), house.database)
    yield bell
    bell.close()


def messages(server: Valkey, queue: str) -> list[tuple[str, list[object]]]:
    """(task, arguments) of what waits in a queue, in Celery's own format."""
    with server.client() as client:
        waiting = [json.loads(message) for message in client.lrange(queue, 0, -1)]
    return [(message["headers"]["task"], _arguments(message)) for message in waiting]


def _arguments(message: dict[str, str]) -> list[object]:
    return list(json.loads(base64.b64decode(message["body"]))[0])


def test_a_job_s_message_is_its_id_on_its_queue(house: House, bell: Bell, valkey: Valkey) -> None:
    job = house.submit(queue="cuda")
    assert bell.ring_job(job.id, job.queue)
    assert messages(valkey, "cuda") == [("modelpress.run_job", [job.id])]
    assert messages(valkey, "cpu") == []
    assert house.row(job).rung_at is not None


def test_an_inspection_s_message_is_its_id(house: House, bell: Bell, valkey: Valkey) -> None:
    asset = house.add(b"x")
    assert bell.ring_inspection(asset.id)
    assert messages(valkey, INSPECTIONS) == [("modelpress.inspect", [asset.id])]


def test_many_threads_ring_one_bell(house: House, bell: Bell, valkey: Valkey) -> None:
    job = house.submit()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: bell.ring_job(job.id, "cpu"), range(40)))
    assert len(messages(valkey, "cpu")) == 40


def test_the_queues_that_hold_messages_are_known(house: House, bell: Bell, valkey: Valkey) -> None:
    assert bell.backlogged() == frozenset()
    bell.ring_job(house.submit(queue="cuda").id, "cuda")
    bell.ring_inspection(house.add(b"x").id)
    assert bell.backlogged() == {"cuda", INSPECTIONS}
    valkey.flush()
    assert bell.backlogged() == frozenset()


def test_a_broker_that_is_down_costs_a_moment_and_nothing_else(house: House) -> None:
    bell = Bell(
        house.settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"}), house.database
    )
    job, started = house.submit(), time.monotonic()
    assert not bell.ring_job(job.id, "cpu")
    assert not bell.check()
    assert bell.backlogged() == set(QUEUES), "it may hold any"
    assert time.monotonic() - started < 4
    assert house.row(job).rung_at is None
    bell.close()


def test_callers_do_not_queue_up_behind_a_dead_broker(house: House) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    bell = Bell(house.settings.model_copy(update={"broker_url": url}), house.database)
    started = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        assert not any(pool.map(lambda _: bell.ring_job("job_1", "cpu"), range(200)))
    assert time.monotonic() - started < 6
    bell.close()


def test_a_restart_between_two_rings_goes_unnoticed(house: House, tmp_path: Path) -> None:
    port = free_port()
    bell = Bell(
        house.settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{port}/0"}), house.database
    )
    for number in range(3):
        server = Valkey(tmp_path / f"valkey{number}", port)
        with running(server):
            assert bell.ring_inspection("mdl_1")
            assert len(messages(server, INSPECTIONS)) == 1
    bell.close()


def test_a_broker_that_does_not_answer_costs_seconds(house: House) -> None:
    """A host that accepts and stays silent, as a stopped virtual machine's would."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        bell = Bell(house.settings.model_copy(update={"broker_url": url}), house.database)
        started = time.monotonic()
        assert not bell.ring_inspection("mdl_1")
        assert not bell.check()
        assert time.monotonic() - started < 8
        bell.close()


def test_the_bell_is_heard_again_when_the_broker_is_back(house: House, tmp_path: Path) -> None:
    port = free_port()
    settings: Settings = house.settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{port}/0"})
    bell = Bell(settings, house.database)
    for attempt in range(2):
        assert not bell.ring_inspection("mdl_1")
        server = Valkey(tmp_path / f"valkey{attempt}", port)
        with running(server):
            assert bell.check()
            assert bell.ring_inspection("mdl_1")
            assert len(messages(server, INSPECTIONS)) == 1
    bell.close()
