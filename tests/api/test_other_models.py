"""Models that steps name beside the one that is compressed: looked up, checked and held as that one is."""

import pytest

from compression.methods.quantize_weights import QuantizeWeights
from db import assets
from db.blobs import object_key
from db.models import AssetKind
from db.projects import ensure_project
from tests.api.conftest import RAW, SMALL_MODEL


@pytest.fixture
def submit(client, model, monkeypatch):
    """Submits a job whose step names the other model, as a method with such a field would."""

    def send(other, **options):
        monkeypatch.setattr(QuantizeWeights, "other_models", lambda self: (other,))
        request = {"model_id": model, "steps": [{"method": "quantize_weights"}]}
        return client.post("/v1/jobs", json=request, **options)

    return send


@pytest.fixture
def theirs(services):
    """Id of a model of another project."""
    content = b"theirs"
    with services.database.transaction() as s:
        stranger = ensure_project(s, "another", services.settings)
    with services.store.begin() as incoming:
        incoming.write(content)
        sha256 = incoming.sha256
        incoming.commit(object_key(stranger.id, sha256))
    with services.database.transaction() as s:
        asset, _ = assets.add_asset(
            s,
            services.store,
            project_id=stranger.id,
            kind=AssetKind.MODEL,
            name="theirs",
            filename="theirs.onnx",
            sha256=sha256,
            size_bytes=len(content),
        )
        claimed = assets.claim_inspection(s, asset.id, 30)
        assets.finish_inspection(s, asset.id, claimed.attempt, SMALL_MODEL.model_dump(mode="json"))
    return asset.id


def test_one_that_is_not_there_and_another_projects_are_refused_alike(submit, theirs):
    unknown = "mdl_01k00000000000000000000000"
    said = []
    for other in (unknown, theirs):
        answer = submit(other, headers={"X-Request-Id": "same"})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        said.append(answer.text.replace(other, "mdl_"))
    assert said[0] == said[1]
    assert submit(theirs, params={"dry_run": True}).status_code == 404


def test_one_that_is_not_ready_is_refused(client, submit):
    other = client.post("/v1/models", content=b"other", headers=RAW).json()["id"]
    answer = submit(other)
    assert (answer.status_code, answer.json()["code"]) == (409, "asset_not_ready")


def test_one_stays_while_the_job_is_not_over(client, submit, ready):
    other = client.post("/v1/models", content=b"other", headers=RAW).json()["id"]
    ready(other, SMALL_MODEL)
    job = submit(other).json()
    refused = client.delete(f"/v1/models/{other}")
    assert (refused.status_code, refused.json()["code"]) == (409, "asset_in_use")
    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{job['id']}/retry").status_code == 202
    assert client.delete(f"/v1/models/{other}").status_code == 409, "the repeated job names it too"
