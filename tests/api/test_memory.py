"""A large upload in bounded memory, and a client that leaves in the middle."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

PROGRAM = """
import sys, uvicorn
from pathlib import Path
from api.app import create_app
from db.session import Database
from db.settings import Settings
settings = Settings(data=Path(sys.argv[1]), auth=False, inspection_wait_s=0, broker_url="redis://127.0.0.1:1/0")
Database(settings).migrate()
uvicorn.run(create_app(settings), host="127.0.0.1", port=0, log_level="info", access_log=False)
"""
MIB = 1 << 20


@pytest.fixture
def served(tmp_path):
    log = tmp_path / "server.log"
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "data")]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield _address(log), psutil.Process(process.pid), tmp_path / "data"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("size_mib", [400, pytest.param(3072, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", [False, True], ids=["raw", "form"])
def test_an_upload_takes_bounded_memory(served, size_mib, form):
    url, process, data = served
    with httpx.Client(base_url=url, timeout=300, trust_env=False) as client:
        _upload(client, 8, form)
        before = process.memory_info().rss
        watched = _Peak(process)
        answer = _upload(client, size_mib, form, watched)

    assert answer.json()["size_bytes"] == size_mib * MIB
    assert watched.peak - before < 64 * MIB
    assert (
        sum(path.stat().st_size for path in (data / "objects").rglob("*") if path.is_file())
        < (size_mib + 9) * MIB
    )


def test_a_client_that_leaves_leaves_nothing(served):
    url, _, data = served

    def body():
        yield bytes(4 * MIB)
        assert _files(data)
        raise ConnectionError

    with httpx.Client(base_url=url, trust_env=False) as client, pytest.raises(ConnectionError):
        client.post("/v1/models", content=_until(body(), data), headers=_RAW)

    deadline = time.monotonic() + 10
    while _files(data):
        assert time.monotonic() < deadline, "the upload was left behind"
        time.sleep(0.05)


_RAW = {"Content-Type": "application/octet-stream"}


class _Peak:
    def __init__(self, process):
        self._process = process
        self.peak = 0

    def look(self):
        self.peak = max(self.peak, self._process.memory_info().rss)


def _upload(client, size_mib, form, watched=None):
    def chunks():
        if form:
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for index in range(size_mib):
            yield index.to_bytes(8, "big") * (MIB // 8)
            if watched:
                watched.look()
        if form:
            yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"} if form else _RAW
    answer = client.post("/v1/models", content=chunks(), headers=headers)
    assert answer.status_code == 202, answer.text
    return answer


def _until(chunks, data):
    """Sends the first chunk, waits for it to be on the disk, and goes on."""
    yield next(chunks)
    deadline = time.monotonic() + 10
    while not _files(data) and time.monotonic() < deadline:
        time.sleep(0.02)
    yield from chunks


def _files(data: Path):
    return [path for path in (data / "objects").rglob("*") if path.is_file()]


def _address(log: Path) -> str:
    deadline = time.monotonic() + 30
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found.group()
