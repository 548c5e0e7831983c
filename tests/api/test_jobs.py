"""Submitting, listing, watching, cancelling and repeating jobs, without a worker: rows are moved as one would."""

import json

import pytest

from api import submission
from api.examples import FOLDER
from compression.measurements import Measurements
from db import jobs
from db.artifacts import NewArtifact
from db.blobs import object_key
from db.queue import Bell
from db.workers import report_worker
from tests.compression.sample_measurements import measurements

STEPS = [{"method": "quantize_weights"}]


@pytest.fixture
def submit(client, model):
    def send(**fields):
        headers = fields.pop("headers", {})
        return client.post("/v1/jobs", json={"model_id": model, "steps": STEPS} | fields, headers=headers)

    return send


def claim(services, job_id):
    with services.database.transaction() as s:
        return jobs.claim(s, job_id, worker="w", lease_s=30, max_attempts=3)


def succeed(
    services, job_id, name="report.html", content=b"<script>alert(1)</script>", media_type="text/html"
):
    job = claim(services, job_id)
    with services.store.begin() as incoming:
        incoming.write(content)
        sha256, size = incoming.sha256, incoming.size_bytes
        incoming.commit(object_key(job.project_id, sha256))
    new = NewArtifact(name=name, media_type=media_type, sha256=sha256, size_bytes=size)
    measured: Measurements = measurements()
    with services.database.transaction() as s:
        assert jobs.succeed(
            s,
            services.store,
            job_id,
            job.token,
            measurements=measured.model_dump(mode="json"),
            artifacts=[new],
        )


def test_a_job_is_queued_and_shown(client, submit, model):
    answer = submit(name="smaller", labels={"team": "vision"}, seed=7, time_limit_s=60)

    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["Retry-After"]
    expected = {
        "state": "queued",
        "name": "smaller",
        "model_id": model,
        "labels": {"team": "vision"},
        "seed": 7,
    }
    assert expected.items() <= job.items()
    assert job["steps"][0]["method"] == "quantize_weights"
    assert job["queue_position"] == 1
    assert job["waiting_for"] == "a worker: none has reported for 60 s"
    assert client.get(answer.headers["Location"]).json() == job


def test_a_job_for_a_gpu_says_that_it_waits_for_one(submit, services):
    assert submit(device="cuda").json()["waiting_for"] == "a worker with a GPU: none is running"
    with services.database.transaction() as s:
        report_worker(s, "gpu", queue="cuda", isolation="rlimits", devices=["cuda"])
    assert submit(device="auto").json()["device"] == "cuda"
    with services.database.transaction() as s:
        report_worker(s, "cpu", queue="cpu", isolation="rlimits", devices=["cpu"])
    job = submit(device="auto").json()
    assert (job["device"], job["waiting_for"]) == ("cpu", "a free worker")
    assert submit().json()["waiting_for"] == "a free worker, behind 1 other job"


def test_the_bell_rings_after_the_commit(client, submit, services, monkeypatch):
    seen = []

    def ring(self, job_id, queue):
        with services.database.read() as s:
            seen.append((jobs.find_job(s, job_id).state, queue))
        return True

    monkeypatch.setattr(Bell, "ring_job", ring)
    submit()
    assert seen == [("queued", "cpu")]


def test_dry_run_queues_nothing(client, submit, model):
    answer = client.post("/v1/jobs?dry_run=true", json={"model_id": model, "steps": STEPS})

    assert answer.status_code == 200
    assert answer.json()["ok"] is True
    assert answer.json()["steps"][0]["layers"] == ["dense"]
    assert client.get("/v1/jobs").json()["items"] == []
    misspelt = client.post("/v1/jobs?dryrun=true", json={"model_id": model, "steps": STEPS})
    assert (misspelt.status_code, misspelt.json()["code"]) == (422, "unknown_parameter")
    assert client.get("/v1/jobs").json()["items"] == []


def test_what_cannot_work_is_refused_with_every_reason(client, submit):
    steps = [{"method": "prune_magnitude", "sparsity": 0.5, "layers": {"include": ["dence"]}}]
    steps.append({"method": "quantize_static"})
    answer = submit(steps=steps)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "preflight_refused")
    found = {error["code"]: error for error in problem["errors"]}
    assert found["data_missing"]["where"].startswith("steps.1")
    assert found["selector_matched_nothing"]["where"].startswith("steps.0")
    assert "dense" in found["selector_matched_nothing"]["hint"]
    assert client.get("/v1/jobs").json()["items"] == []


INVALID_REQUESTS_NAME_THE_PLACE = [
    ({"steps": []}, "steps"),
    ({"steps": [{"method": "prune_magnitude", "sparsity": 1.5}]}, "steps.0.sparsity"),
    ({"steps": [{"method": "prune_magnitud"}]}, "steps.0"),
    ({"model_id": "mdl_x"}, "model_id"),
    ({"labels": {f"k{i}": "v" for i in range(17)}}, "labels"),
    ({"labels": {"k": "v" * 513}}, "labels.k"),
    ({"data": {"calibration": "mdl_01k00000000000000000000000"}}, "data.calibration"),
    ({"unknown": 1}, "unknown"),
    ({"time_limit_s": 0}, "time_limit_s"),
    ({"time_limit_s": 7 * 24 * 3600}, "time_limit_s"),
    ({"seed": 10**30}, None),
    ({"name": "a\0b"}, None),
    ({"name": "\ud800"}, None),
    ({"labels": {"a\0b": "v"}}, None),
    ({"steps": [{"method": "quantize_weights", "layers": {"include": ["a\0"]}}]}, None),
    ({"time_limit_s": float("nan")}, None),
]


def test_invalid_requests_name_the_place(client, model, subtests):
    for fields, where in INVALID_REQUESTS_NAME_THE_PLACE:
        with subtests.test(fields=str(fields)[:80]):
            body = json.dumps({"model_id": model, "steps": STEPS} | fields)
            answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})

            problem = answer.json()
            assert (answer.status_code, problem["code"]) == (422, "validation_failed")
            assert where is None or where in {error["where"] for error in problem["errors"]}


def test_a_misspelt_method_is_told_the_nearest_and_nothing_else(submit):
    problem = submit(steps=[{"method": "prune_magnitud"}]).json()
    assert [error["where"] for error in problem["errors"]] == ["steps.0"]
    assert problem["errors"][0]["message"] == "there is no method 'prune_magnitud'"
    assert problem["errors"][0]["hint"] == "did you mean prune_magnitude?"


def test_a_field_that_is_not_there_is_told_those_that_are(submit):
    step = {"method": "prune_magnitude", "sparsty": 0.5, "include": ["*"]}
    hints = {error["where"]: error["hint"] for error in submit(steps=[step], modelid="x").json()["errors"]}
    assert hints["steps.0.sparsty"] == "did you mean sparsity?"
    assert hints["steps.0.include"].startswith("fields here: layers, sparsity, ")
    assert hints["modelid"] == "did you mean model_id?"


BODIES_THAT_ARE_NO_REQUESTS = [
    (b"{", "application/json", 400),
    (b"\xff\xfe{}", "application/json", 400),
    (b"[" * 100_000, "application/json", 400),
    (b"{}", "text/plain", 415),
    (b"{}", "application/json; charset=utf-8", 422),
    (b"[]", "application/json", 422),
    (b"", "application/json", 422),
    (b'"' + b"x" * 2_000_000 + b'"', "application/json", 413),
]


def test_bodies_that_are_no_requests(client, subtests):
    for body, media_type, status in BODIES_THAT_ARE_NO_REQUESTS:
        with subtests.test(body=str(body)[:80]):
            answer = client.post("/v1/jobs", content=body, headers={"Content-Type": media_type})
            assert answer.status_code == status
            assert answer.headers["Content-Type"] == "application/problem+json"


def test_missing_and_unready_inputs(client, submit, services):
    assert submit(model_id="mdl_01k00000000000000000000000").status_code == 404
    raw = {"Content-Type": "application/octet-stream"}
    unready = client.post("/v1/models", content=b"other", headers=raw).json()["id"]
    assert (answer := submit(model_id=unready)).status_code == 409
    assert answer.json()["code"] == "asset_not_ready"


def test_idempotency(client, submit):
    first = submit(headers={"Idempotency-Key": "k1"})
    again = submit(headers={"Idempotency-Key": "k1"})
    other = submit(headers={"Idempotency-Key": "k1"}, seed=1)

    assert first.json()["id"] == again.json()["id"]
    assert again.status_code == 202
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert submit(headers={"Idempotency-Key": "k2"}).json()["id"] != first.json()["id"]


def test_a_second_submission_meanwhile_is_told_so(submit, services, monkeypatch):
    seen = []

    def submit_again(*arguments):
        monkeypatch.setattr("api.submission.look", look)
        seen.append(submit(headers={"Idempotency-Key": "k"}))
        return look(*arguments)

    look = submission.look
    monkeypatch.setattr("api.submission.look", submit_again)

    assert submit(headers={"Idempotency-Key": "k"}).status_code == 202
    assert (seen[0].status_code, seen[0].json()["code"]) == (409, "idempotency_in_progress")
    assert seen[0].headers["Retry-After"]


def test_a_refused_submission_frees_its_key(submit):
    missing = {"model_id": "mdl_01k00000000000000000000000", "headers": {"Idempotency-Key": "k"}}
    assert submit(**missing).status_code == 404
    assert submit(headers={"Idempotency-Key": "k"}).status_code == 202


def test_lists_filter_and_page(client, submit, services, model):
    ids = [submit(labels={"n": str(n), 'q"uote': "a:b"}).json()["id"] for n in range(3)]
    claim(services, ids[0])

    def listed(**query):
        return [job["id"] for job in client.get("/v1/jobs", params=query).json()["items"]]

    assert listed() == ids[::-1]
    assert listed(state="running") == ids[:1]
    assert listed(label="n:1") == [ids[1]]
    assert listed(label='q"uote:a:b') == ids[::-1]
    assert listed(model_id=model, label="n:9") == []
    page = client.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in page["items"]] == ids[:0:-1]
    assert listed(limit=2, cursor=page["next_cursor"]) == ids[:1]


BAD_QUERIES_ARE_422 = [
    "limit=0",
    "limit=1000",
    "limit=x",
    "cursor=x",
    "cursor=%00",
    "state=x",
    "label=x",
    "label=%00:x",
    "x=1",
]


def test_bad_queries_are_422(client, subtests):
    for query in BAD_QUERIES_ARE_422:
        with subtests.test(query=str(query)[:80]):
            answer = client.get(f"/v1/jobs?{query}")
            assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")


def test_cancel_and_retry(client, submit):
    job = submit().json()
    assert (
        client.post(
            f"{job['links']['retry'] if 'retry' in job['links'] else job['links']['self'] + '/retry'}"
        ).status_code
        == 409
    )
    cancelled = client.post(job["links"]["cancel"])
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    again = client.post(job["links"]["self"] + "/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job_finished")

    repeated = client.post(cancelled.json()["links"]["retry"])
    assert repeated.status_code == 202
    assert repeated.headers["Location"] == f"/v1/jobs/{repeated.json()['id']}"
    assert (repeated.json()["retry_of"], repeated.json()["state"]) == (job["id"], "queued")


def test_a_finished_job_has_results_artifacts_and_a_comparison(client, submit, services):
    ids = [submit(name="=cmd|'/c calc'").json()["id"], submit().json()["id"]]
    for job_id in ids:
        succeed(services, job_id)

    job = client.get(f"/v1/jobs/{ids[0]}").json()
    assert (job["state"], job["percentage_done"], job["size_ratio"]) == ("succeeded", 100, 3.9)
    assert job["speedup"] == 0.96
    assert job["verdict"] == job["measurements"]["verdict"]
    [artifact] = client.get(job["links"]["artifacts"]).json()["items"]
    assert client.get(artifact["links"]["self"]).json() == artifact
    page = client.get(artifact["links"]["content"])
    assert page.content == b"<script>alert(1)</script>"
    assert page.headers["Content-Security-Policy"].startswith("sandbox")
    assert page.headers["Content-Disposition"].startswith("inline")

    query = [("job", job_id) for job_id in [*ids, ids[0]]]
    found = client.get("/v1/comparisons", params=query).json()
    assert [row["kind"] for row in found["rows"]] == ["original", "job", "job"]
    csv = client.get("/v1/comparisons", params=[*query, ("format", "csv")])
    assert csv.headers["Content-Type"].startswith("text/csv")
    assert "\r\n" in csv.text
    assert ",=cmd" not in csv.text
    html = client.get("/v1/comparisons", params=[*query, ("format", "html")])
    assert "sandbox" in html.headers["Content-Security-Policy"]
    assert "<script" not in html.text


def test_comparisons_need_finished_jobs(client, submit):
    job_id = submit().json()["id"]
    assert client.get(f"/v1/comparisons?job={job_id}").status_code == 409
    assert client.get("/v1/comparisons?job=job_01k00000000000000000000000").status_code == 404
    assert client.get("/v1/comparisons").status_code == 422


def test_a_model_in_use_is_not_deleted(client, submit, model):
    job = submit().json()
    assert client.delete(f"/v1/models/{model}").json()["code"] == "asset_in_use"
    client.post(job["links"]["cancel"])
    assert client.delete(f"/v1/models/{model}").status_code == 204
    assert client.get(f"/v1/models/{model}").status_code == 404
    assert client.get(f"/v1/jobs/{job['id']}").json()["model_id"] == model


def test_the_queue_of_a_project_is_bounded(submit, services):
    from db.models import Project

    submit()
    with services.database.transaction() as s:
        s.query(Project).update({"max_queued_jobs": 1})
    answer = submit()
    assert (answer.status_code, answer.json()["code"]) == (403, "quota_exceeded")
    assert answer.json()["errors"][0]["where"] == "max_queued_jobs"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_the_examples_are_taken(client, model, dataset, path):
    request = json.loads(path.read_text())
    request["model_id"] = model
    request["data"] = dict.fromkeys(request.get("data", {}), dataset)
    if path.stem == "chosen_layers":
        request["steps"][0]["layers"]["exclude"] = []

    answer = client.post("/v1/jobs", json=request)

    assert answer.status_code == 202, answer.text
