"""A service under test: the real application behind a real socket, on both set-ups; and one with workers.

- `client`: on empty rows and objects, without workers; what an inspection finds is written by `ready`
- `live`: on SQLite and local files, with real workers, for the whole session
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from api.app import create_app
from api.services import Services
from compression.summary import (
    ArraySummary,
    DatasetSummary,
    LayerSummary,
    ModelSummary,
    TensorSummary,
    WeightSummary,
)
from db import assets
from db.session import Database
from db.settings import Settings
from tests.servers import Valkey, running


class Client(httpx.Client):
    """Calls one service; `services` is what that service itself uses."""

    services: Services


@contextmanager
def client_of(settings: Settings, **options) -> Iterator[Client]:
    """Serves the application on a free port, in a thread, for as long as the block lasts."""
    app = create_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with Client(base_url=url, timeout=60, trust_env=False, **options) as client:
                client.services = app.state.services
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def open_settings(service_settings: Settings) -> Settings:
    """Without keys, and without waiting for inspections that no worker makes."""
    return service_settings.model_copy(update={"auth": False, "inspection_wait_s": 0.0})


@pytest.fixture
def client(open_settings: Settings) -> Iterator[Client]:
    with client_of(open_settings) as client:
        yield client


@pytest.fixture
def services(client: Client) -> Services:
    return client.services


@pytest.fixture
def ready(services: Services) -> Callable[..., None]:
    """Does what the worker does after an inspection."""

    def finish(asset_id: str, summary: ModelSummary | DatasetSummary) -> None:
        with services.database.transaction() as s:
            claimed = assets.claim_inspection(s, asset_id, 30)
            assets.finish_inspection(s, asset_id, claimed.attempt, summary.model_dump(mode="json"))

    return finish


@pytest.fixture
def model(client: Client, ready: Callable[..., None]) -> str:
    """Id of a small model that is ready."""
    found = client.post("/v1/models?filename=small.onnx", content=b"model", headers=RAW).json()
    ready(found["id"], SMALL_MODEL)
    return found["id"]


@pytest.fixture
def dataset(client: Client, ready: Callable[..., None]) -> str:
    """Id of a labelled dataset that fits `model`."""
    found = client.post("/v1/datasets?filename=small.npz", content=b"dataset", headers=RAW).json()
    ready(found["id"], SMALL_DATASET)
    return found["id"]


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, server_folder: Path) -> Iterator[Client]:
    with running(Valkey(server_folder / "live-valkey")) as valkey:
        settings = Settings(
            data=tmp_path_factory.mktemp("live"),
            broker_url=valkey.url,
            auth=False,
            inspection_wait_s=30,
            sweep_s=1,
        )
        database = Database(settings)
        database.migrate()
        database.close()
        with worker(settings, "cpu"), worker(settings, "inspections"), client_of(settings) as client:
            _wait_for_workers(client)
            yield client


@contextmanager
def worker(settings: Settings, queue: str) -> Iterator[None]:
    environment = os.environ | {
        "MODELPRESS_DATA": str(settings.data),
        "MODELPRESS_DATABASE_URL": settings.database_url,
        "MODELPRESS_STORAGE_URL": settings.storage_url,
        "MODELPRESS_BROKER_URL": settings.broker_url,
    }
    log = settings.data / f"{queue}.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "worker", "--queue", queue]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def _wait_for_workers(client: Client) -> None:
    deadline = time.monotonic() + 60
    while client.get("/readyz").json().get("workers") != {"cpu": 1, "inspections": 1}:
        assert time.monotonic() < deadline, "the workers did not report"
        time.sleep(0.1)


RAW = {"Content-Type": "application/octet-stream"}
SMALL_MODEL = ModelSummary(
    ir_version=8,
    opset=17,
    domains={},
    producer="tests",
    inputs=(TensorSummary(name="x", dtype="float32", shape=("batch", 64)),),
    outputs=(TensorSummary(name="y", dtype="float32", shape=("batch", 64)),),
    parameters=4096,
    nonzero_parameters=4096,
    size_bytes=16_800,
    weight_bytes=16_384,
    macs=4096,
    macs_complete=True,
    operators={"Gemm": 1},
    layers=(
        LayerSummary(
            name="dense",
            op_type="Gemm",
            weights=(WeightSummary(name="w", dtype="float32", shape=(64, 64), size_bytes=16_384, zeros=0),),
            macs=4096,
        ),
    ),
    subgraphs=0,
    functions=0,
    quantized=False,
    external_data=False,
)
SMALL_DATASET = DatasetSummary(
    format="npz",
    samples=16,
    size_bytes=4300,
    arrays=(
        ArraySummary(name="x", dtype="float32", shape=(16, 64)),
        ArraySummary(name="labels", dtype="int64", shape=(16,)),
    ),
)
