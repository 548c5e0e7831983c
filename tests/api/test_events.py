"""Events as a list and as a stream, and long polls."""

import threading
import time

import pytest

from db import jobs


@pytest.fixture
def job(client, model):
    return client.post("/v1/jobs", json={"model_id": model, "steps": [{"method": "quantize_weights"}]}).json()


def read(client, job, **headers):
    """All events of a stream as (id, type) until the service ends it."""
    found = []
    headers = {"Accept": "text/event-stream"} | headers
    with client.stream("GET", job["links"]["events"], headers=headers) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("id: "):
                found.append(int(line[4:]))
    return found


def later(seconds, do):
    timer = threading.Timer(seconds, do)
    timer.start()
    return timer


def test_the_list_reads_on_from_an_id(client, job, services):
    first = client.get(job["links"]["events"]).json()
    assert [event["data"]["state"] for event in first["items"]] == ["queued"]
    assert first["final"] is False

    client.post(job["links"]["cancel"])
    rest = client.get(job["links"]["events"], params={"after": first["next_after"]}).json()
    assert [event["data"]["state"] for event in rest["items"]] == ["cancelled"]
    assert rest["final"] is True


def test_a_stream_gives_events_as_they_come_and_ends_with_the_job(client, job):
    timer = later(0.5, lambda: client.post(job["links"]["cancel"]))
    ids = read(client, job)
    timer.join()

    assert ids == [event["id"] for event in client.get(job["links"]["events"]).json()["items"]]


def test_a_stream_goes_on_where_it_ended(client, job):
    client.post(job["links"]["cancel"])
    ids = read(client, job)

    assert read(client, job, **{"Last-Event-ID": str(ids[0])}) == ids[1:]
    assert read(client, job, **{"Last-Event-ID": "nonsense"}) == ids
    over = client.get(
        job["links"]["events"], headers={"Accept": "text/event-stream", "Last-Event-ID": str(ids[-1])}
    )
    assert over.status_code == 204


def test_a_long_poll_answers_when_the_job_is_over(client, job):
    started = time.monotonic()
    timer = later(0.5, lambda: client.post(job["links"]["cancel"]))
    found = client.get(job["links"]["self"], params={"wait": 30}).json()
    timer.join()

    assert found["state"] == "cancelled"
    assert 0.4 < time.monotonic() - started < 10


def test_a_long_poll_answers_at_its_end(client, job):
    started = time.monotonic()
    assert client.get(job["links"]["self"], params={"wait": 0.3}).json()["state"] == "queued"
    assert 0.3 <= time.monotonic() - started < 5


def test_many_that_wait_hold_up_nobody(client, job):
    """Three times as many long polls and streams as there are threads."""
    waiting = [
        threading.Thread(target=client.get, args=(job["links"]["self"],), kwargs={"params": {"wait": 60}})
        for _ in range(36)
    ] + [threading.Thread(target=read, args=(client, job)) for _ in range(36)]
    for thread in waiting:
        thread.start()
    time.sleep(1)
    assert client.get("/v1/jobs").status_code == 200
    still = sum(thread.is_alive() for thread in waiting)
    client.post(job["links"]["cancel"])
    for thread in waiting:
        thread.join()

    assert still == len(waiting)


def test_the_states_of_a_running_job_are_told(client, job, services):
    with services.database.transaction() as s:
        claimed = jobs.claim(s, job["id"], worker="w", lease_s=30, max_attempts=3)
        jobs.start_step(s, job["id"], claimed.token, 0)
    shown = client.get(job["links"]["self"]).json()
    assert (shown["state"], shown["step"], shown["steps"][0]["state"]) == ("running", 0, "running")
    assert shown["queue_position"] is None
