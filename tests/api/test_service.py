"""Errors, headers, health, metrics, the catalogue and the pages."""

import re

import pytest

from api import openapi
from compression.registry import METHODS
from db.models import JobState
from db.storage import ObjectStore
from tests.api.conftest import client_of

FIELDS = {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}


def test_every_error_is_a_problem_with_a_request_id(client):
    cases = {
        ("GET", "/nothing"): (404, "not_found"),
        ("GET", "/v1/models/nonsense"): (404, "not_found"),
        ("GET", "/v1/models/mdl_01k00000000000000000000000"): (404, "not_found"),
        ("GET", "/v1/models/%00"): (404, "not_found"),
        ("GET", "/static/nothing.js"): (404, "not_found"),
        ("GET", "/v1/methods/nonsense"): (404, "not_found"),
        ("PUT", "/v1/models"): (405, "method_not_allowed"),
        ("PATCH", "/v1/jobs"): (405, "method_not_allowed"),
        ("GET", "/v1/models?limit=x"): (422, "validation_failed"),
        ("GET", "/healthz?x=1"): (422, "unknown_parameter"),
        ("GET", "/v1/jobs/"): (404, "not_found"),
    }
    for (method, path), (status, code) in cases.items():
        answer = client.request(method, path)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (status, code), path
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert problem.keys() == FIELDS
        assert problem["status"] == status
        assert problem["request_id"] == answer.headers["X-Request-Id"]


def test_405_names_all_that_is_allowed(client):
    assert client.put("/v1/models").headers["Allow"] == "GET, POST"
    assert client.put("/v1/models/mdl_01k00000000000000000000000").headers["Allow"] == "DELETE, GET"


def test_request_ids_are_taken_over_if_they_are_plain(client):
    assert client.get("/healthz", headers={"X-Request-Id": "abc-1.2"}).headers["X-Request-Id"] == "abc-1.2"
    assert client.get("/healthz", headers={"X-Request-Id": "a b"}).headers["X-Request-Id"] != "a b"


def test_a_defect_is_a_500_without_its_details(client, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr("api.routes.models.assets.listed", fail)
    answer = client.get("/v1/models")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


def test_ready_when_all_parts_answer(client):
    answer = client.get("/readyz").json()
    assert answer["status"] == "ready"
    assert all(part["ok"] for part in answer["parts"].values())
    assert answer["workers"] == {}


def test_not_ready_says_what_does_not_answer(open_settings, monkeypatch):
    broken = open_settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    with client_of(broken) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert [error["where"] for error in answer.json()["errors"]] == ["broker"]
        assert client.get("/healthz").status_code == 200


def test_a_silent_part_is_not_waited_for(client, monkeypatch):
    import time

    monkeypatch.setattr("api.routes.health.CHECK_S", 0.3)
    monkeypatch.setattr(type(client.services.store), "check", lambda self: time.sleep(3))
    assert isinstance(client.services.store, ObjectStore)
    started = time.monotonic()
    answer = client.get("/readyz")
    assert time.monotonic() - started < 2
    assert answer.json()["errors"][0]["where"] == "storage"


def test_metrics_count_requests_and_queues(client, model):
    client.post("/v1/jobs", json={"model_id": model, "steps": [{"method": "quantize_weights"}]})
    answer = client.get("/metrics")

    assert answer.headers["Content-Type"].startswith("text/plain")
    assert f'modelpress_jobs{{queue="cpu",state="{JobState.QUEUED}"}} 1.0' in answer.text
    assert 'modelpress_http_requests_total{method="POST",route="/v1/jobs",status="202"} 1.0' in answer.text
    assert "modelpress_inspections_waiting 0.0" in answer.text


def test_every_method_is_in_the_catalogue(client):
    items = {item["name"]: item for item in client.get("/v1/methods").json()["items"]}
    assert items.keys() == METHODS.keys()
    for name, item in items.items():
        assert client.get(f"/v1/methods/{name}").json() == item
        assert item["example"]["method"] == name
        METHODS[name].model_validate(item["example"])


@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/job_01k00000000000000000000000", "/compare", "/docs"])
def test_pages_load_nothing_from_elsewhere(client, path):
    page = client.get(path)

    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"https?://", page.text.replace("http://www.w3.org", ""))
    for source in re.findall(r'(?:src|href)="(/[^"]*)"', page.text):
        assert client.get(source).status_code == 200, source


def test_the_document_is_current():
    assert openapi.check_document() == 0, "run `python -m api.openapi --write`"


def test_the_document_describes_every_method_with_its_example(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for method in METHODS.values():
        schema = schemas[method.__name__]
        assert schema["examples"] == [dict(method.example)]
        assert "method" in schema["required"]
        for name, field in schema["properties"].items():
            assert name == "method" or field.get("description"), f"{method.__name__}.{name}"
