"""The whole way of a job over HTTP, with real workers behind the service."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.api.conftest import RAW
from tests.api.test_events import read


@pytest.fixture(scope="session")
def network() -> bytes:
    """A matrix product of 256 x 256 and a Relu, opset 17."""
    weight = np.random.default_rng(0).standard_normal((256, 256), dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
            helper.make_node("Relu", ["h"], ["y"], "relu"),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 256])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_upload_compress_download_compare(live, network):
    files = {"file": ("network.onnx", network)}
    uploaded = live.post("/v1/models", files=files)
    assert uploaded.status_code == 201
    model = uploaded.json()
    assert (model["state"], model["summary"]["parameters"]) == ("ready", 256 * 256)
    again = live.post("/v1/models", files=files)
    assert (again.status_code, again.json()) == (200, model)
    [layer] = live.get(model["links"]["layers"]).json()["items"]
    assert layer["name"] == "product"

    request = {"model_id": model["id"], "steps": [{"method": "quantize_weights"}]}
    submitted = live.post("/v1/jobs", json=request)
    assert submitted.status_code == 202
    ids = read(live, submitted.json())
    job = live.get(submitted.headers["Location"], params={"wait": 60}).json()
    assert job["state"] == "succeeded", job["error"]
    assert ids == [event["id"] for event in live.get(job["links"]["events"]).json()["items"]]
    assert job["size_ratio"] > 3
    assert job["steps"][0]["changed"] == 1

    files = {item["name"]: item for item in live.get(job["links"]["artifacts"]).json()["items"]}
    assert {"model.onnx", "report.json", "report.html", "recipe.json", "manifest.json"} <= files.keys()
    content = live.get(files["model.onnx"]["links"]["content"]).content
    onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    comparison = live.get("/v1/comparisons", params={"job": job["id"]}).json()
    assert [row["kind"] for row in comparison["rows"]] == ["original", "job"]


@pytest.mark.parametrize(
    ("path", "content", "code"),
    [("/v1/models", b"this is text", "invalid_model"), ("/v1/datasets", b"PK\x03\x04", "invalid_dataset")],
)
def test_a_bad_file_is_refused_with_the_reason(live, path, content, code):
    answer = live.post(path, content=content, headers=RAW)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, code)
    assert problem["detail"]
    assert problem["errors"][0]["message"] == problem["detail"]


def test_a_packed_model_downloads_as_onnx(live, network):
    model = live.post("/v1/models", files={"file": ("network.onnx", network)}).json()
    steps = [{"method": "quantize_weights"}, {"method": "pack"}]
    submitted = live.post("/v1/jobs", json={"model_id": model["id"], "steps": steps})
    job = live.get(submitted.headers["Location"], params={"wait": 60}).json()
    assert job["state"] == "succeeded", job["error"]
    files = {item["name"]: item for item in live.get(job["links"]["artifacts"]).json()["items"]}
    delivered = live.get(files["model.onnx"]["links"]["content"]).content
    packed = files["model.packed"]["links"]["content"]

    answer = live.get(packed, params={"as": "onnx"})

    assert answer.content == delivered
    assert answer.headers["Content-Length"] == str(len(delivered))
    assert 'filename="model.onnx"' in answer.headers["Content-Disposition"]
    assert len(live.get(packed).content) == files["model.packed"]["size_bytes"] < len(delivered)
    etag = answer.headers["ETag"]
    assert etag != live.head(packed).headers["ETag"]
    assert live.get(packed, params={"as": "onnx"}, headers={"If-None-Match": etag}).status_code == 304
    head = live.head(packed, params={"as": "onnx"})
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(delivered)))
    ranged = live.get(packed, params={"as": "onnx"}, headers={"Range": "bytes=0-9"})
    assert (ranged.status_code, ranged.content) == (200, delivered)
    for name in ("model.onnx", "report.json"):
        refused = live.get(files[name]["links"]["content"], params={"as": "onnx"})
        assert (refused.status_code, refused.json()["code"]) == (422, "not_packed")
        assert "model.packed" in refused.json()["errors"][0]["hint"]
    unknown = live.get(packed, params={"as": "pickle"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "validation_failed")
