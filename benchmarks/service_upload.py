"""How quickly a large file goes in, beside copying and hashing it, and what that costs the API in memory."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import httpx
import psutil

from api.embedded import Service

CHUNK_BYTES = 1 << 20
RUNS = 3
ROW = 1024


@dataclass(frozen=True, kw_only=True)
class Upload:
    size_bytes: int
    runs: int
    upload_s: float
    copy_s: float
    hash_s: float
    growth_bytes: int


def measure_upload(client: httpx.Client, service: Service, folder: Path, *, size_bytes: int) -> Upload:
    (http,) = [child for child in service.children if child.name == "http"]
    uploads, copies, hashes, growth = [], [], [], 0
    for run in range(RUNS):
        source = folder / "large.safetensors"
        _make(source, size_bytes, run)
        with Memory(http.process.pid) as memory:
            uploads.append(_upload(client, source))
        growth = max(growth, memory.growth_bytes)
        copies.append(_timed(partial(_copy, source, folder / "copy")))
        hashes.append(_timed(partial(_hash, source)))
    return Upload(
        size_bytes=size_bytes,
        runs=RUNS,
        upload_s=min(uploads),
        copy_s=min(copies),
        hash_s=min(hashes),
        growth_bytes=growth,
    )


class Memory:
    """Watches a process; `growth_bytes` is how far its resident memory rose above where it began."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._began = self._highest = self._resident()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def growth_bytes(self) -> int:
        return self._highest - self._began

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(0.02):
            self._highest = max(self._highest, self._resident())

    def _resident(self) -> int:
        return int(self._process.memory_info().rss)


def _make(path: Path, size_bytes: int, run: int) -> None:
    """A .safetensors file of zeros that takes no room on disk; `run` makes its bytes new to the service."""
    rows = size_bytes // (4 * ROW)
    tensor = {"dtype": "F32", "shape": [rows, ROW], "data_offsets": [0, rows * ROW * 4]}
    head = json.dumps({"__metadata__": {"run": str(run)}, "x": tensor}).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + rows * ROW * 4)


def _upload(client: httpx.Client, source: Path) -> float:
    """Seconds until the row is there; the inspection comes after it."""
    began = time.time()
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(source.stat().st_size)}
    params = {"filename": source.name}
    answer = client.post("/v1/datasets", params=params, headers=headers, content=_chunks(source))
    if not answer.is_success:
        raise RuntimeError(f"The upload was refused: {answer.text}")
    found = answer.json()
    client.get(f"/v1/datasets/{found['id']}", params={"wait": 60})
    seconds = datetime.fromisoformat(found["created_at"]).timestamp() - began
    client.delete(f"/v1/datasets/{found['id']}")
    return seconds


def _copy(source: Path, target: Path) -> None:
    """Through user space, as a service must; the kernel alone would copy no zeros at all."""
    with target.open("wb", buffering=0) as file:
        for chunk in _chunks(source):
            file.write(chunk)
        os.fsync(file.fileno())
    target.unlink()


def _hash(source: Path) -> None:
    digest = hashlib.sha256()
    for chunk in _chunks(source):
        digest.update(chunk)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _timed(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
