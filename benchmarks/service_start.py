"""How long the API takes to start, and what it has in memory then."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

HEAVY = ("libtorch", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Start:
    seconds: float
    heavy: bool
    resident_bytes: int


def measure_start(*, runs: int) -> Start:
    """The HTTP process alone; no broker runs, and none is needed to answer."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "MODELPRESS_DATA": folder,
            "MODELPRESS_BROKER_URL": "redis://127.0.0.1:9/0",
        }
        subprocess.run([sys.executable, "-m", "api", "migrate"], env=environment, check=True)
        found = [_start(environment, port) for port in _free_ports(runs)]
    return Start(
        seconds=statistics.median(start.seconds for start in found),
        heavy=any(start.heavy for start in found),
        resident_bytes=max(start.resident_bytes for start in found),
    )


def _start(environment: dict[str, str], port: int) -> Start:
    command = [sys.executable, "-m", "api", "http", "--port", str(port)]
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_until_it_answers(f"http://127.0.0.1:{port}/healthz", process)
            seconds = time.perf_counter() - began
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            resident_bytes = psutil.Process(process.pid).memory_info().rss
        finally:
            process.terminate()
    return Start(seconds=seconds, heavy=any(name in maps for name in HEAVY), resident_bytes=resident_bytes)


def _wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]") -> None:
    with httpx.Client(trust_env=False) as client:
        while process.poll() is None:
            try:
                if client.get(url).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.005)
    raise RuntimeError(f"The API ended with {process.returncode}")


def _free_ports(count: int) -> list[int]:
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
