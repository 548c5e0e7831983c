"""Keys, scopes, projects, and what guards a service without keys."""

import pytest

from db.keys import Scope, create_key, revoke_key
from db.projects import ensure_project
from tests.api.conftest import RAW, client_of


@pytest.fixture
def guarded(service_settings):
    """A service that asks for keys because nobody said that it need not."""
    with client_of(service_settings.model_copy(update={"inspection_wait_s": 0.0})) as client:
        yield client


@pytest.fixture
def key(guarded):
    def make(project="default", scopes=tuple(Scope)):
        services = guarded.services
        with services.database.transaction() as s:
            owner = ensure_project(s, project, services.settings)
            row, secret = create_key(s, owner, "tests", scopes)
        return row, {"Authorization": f"Bearer {secret}"}

    return make


def test_without_a_key_401(guarded):
    for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer mpk_wrong"}):
        answer = guarded.get("/v1/models", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert guarded.post("/v1/models", content=b"x", headers=RAW).status_code == 401
    assert guarded.post("/v1/jobs", json={}).status_code == 401


def test_what_is_open_to_all(guarded):
    for path in ("/", "/docs", "/jobs", "/openapi.json", "/v1/methods", "/healthz", "/static/style.css"):
        assert guarded.get(path).status_code == 200, path


def test_a_key_opens_what_its_scopes_name(guarded, key):
    _, reader = key(scopes=[Scope.MODELS_READ])

    assert guarded.get("/v1/models", headers=reader).status_code == 200
    answer = guarded.post("/v1/models", content=b"x", headers=reader | RAW)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert "models:write" in answer.json()["detail"]
    assert guarded.get("/v1/jobs", headers=reader).status_code == 403


def test_a_revoked_key_opens_nothing(guarded, key):
    row, headers = key()
    assert guarded.get("/v1/models", headers=headers).status_code == 200
    with guarded.services.database.transaction() as s:
        revoke_key(s, row.id)
    assert guarded.get("/v1/models", headers=headers).status_code == 401


def test_another_projects_things_do_not_exist(guarded, key):
    _, ours = key("ours")
    _, theirs = key("theirs")
    model = guarded.post("/v1/models", content=b"x", headers=ours | RAW).json()

    for path in ("", "/layers", "/content"):
        answer = guarded.get(model["links"]["self"] + path, headers=theirs)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert guarded.delete(model["links"]["self"], headers=theirs).status_code == 404
    assert guarded.get("/v1/models", headers=theirs).json()["items"] == []
    same_bytes = guarded.post("/v1/models", content=b"x", headers=theirs | RAW).json()
    assert same_bytes["id"] != model["id"]


def test_an_open_service_answers_only_under_local_names(client):
    for host in (
        "localhost",
        "localhost:8000",
        "127.0.0.1:80",
        "[::1]:8000",
        "[::1]",
        "192.168.1.4",
        "api:8000",
    ):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", ""):
        answer = client.get("/v1/models", headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused"), host


def test_pages_of_other_origins_change_nothing(client):
    own = str(client.base_url).rstrip("/")
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        answer = client.post("/v1/models", content=b"x", headers=RAW | {"Origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused"), origin
    site = client.post("/v1/models", content=b"x", headers=RAW | {"Sec-Fetch-Site": "cross-site"})
    assert site.status_code == 403
    assert client.post("/v1/models", content=b"x", headers=RAW | {"Origin": own}).status_code == 202


def test_a_guarded_service_needs_no_such_care(guarded, key):
    _, headers = key()
    foreign = headers | {"Host": "models.example", "Origin": "http://other.example"}
    assert guarded.post("/v1/models", content=b"x", headers=foreign | RAW).status_code == 202
