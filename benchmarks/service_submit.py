"""How long a job waits on an idle service before a worker runs it."""

import time
from datetime import datetime
from pathlib import Path

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 64


def measure_submit(client: httpx.Client, folder: Path, *, jobs: int) -> list[float]:
    """Milliseconds from sending the request to `running`, per job."""
    model_id = _upload_model(client, folder / "model.onnx")
    _submit(client, model_id, seed=0)  # The first one starts the worker's warm parent, if it is not up yet.
    return [_submit(client, model_id, seed) for seed in range(1, jobs + 1)]


def _submit(client: httpx.Client, model_id: str, seed: int) -> float:
    request = {"model_id": model_id, "seed": seed, "steps": [{"method": "quantize_weights"}]}
    sent_at = time.time()
    job = _checked(client.post("/v1/jobs", json=request)).json()
    done = _checked(client.get(f"/v1/jobs/{job['id']}", params={"wait": 60})).json()
    if done["state"] != "succeeded":
        raise RuntimeError(f"The job ended as {done['state']}: {done['error']}")
    time.sleep(0.2)  # An idle service: the worker has tidied up after the last job.
    return 1000 * (datetime.fromisoformat(done["started_at"]).timestamp() - sent_at)


def _upload_model(client: httpx.Client, path: Path) -> str:
    weights = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")],
        "one_layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CHANNELS])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    answer = client.post("/v1/models", files={"file": (path.name, path.read_bytes())})
    return str(_checked(answer).json()["id"])


def _checked(response: httpx.Response) -> httpx.Response:
    if not response.is_success:
        raise RuntimeError(f"{response.request.url}: {response.status_code}: {response.text}")
    return response
