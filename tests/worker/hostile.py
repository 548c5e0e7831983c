"""What a taken-over child would try.

These entries exist for tests alone: only a test's own sandbox names them.
"""

import ctypes
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compression.errors import InvalidModel
from worker.channel import Channel

Request = Mapping[str, Any]


def echo(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    return {"said": request["say"], "threads": len(list(Path("/proc/self/task").iterdir()))}


def refuse(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    raise InvalidModel("no model", where="layer", hint="bring one")


def defect(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    raise KeyError("oops")


def look_around(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    """What can be seen of the paths, processes and addresses in the request."""
    return {
        "environment": dict(os.environ),
        "readable": [path for path in request["paths"] if _readable(path)],
        "listable": [path for path in request["folders"] if _listable(path)],
        "reachable": [port for port in request["ports"] if _reachable(port)],
        "signalled": [pid for pid in request["pids"] if _signalled(pid)],
        "forked": _exit_code_of_fork(),
    }


def write_outside(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    return {"written": [path for path in request["paths"] if _written(Path(path))]}


def hog_memory(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    hoard = []
    while True:
        hoard.append(bytearray(16 << 20))


def hog_memory_in_pieces(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    """Several processes, none of which has too much."""
    for _ in range(request["processes"]):
        if os.fork() == 0:
            hoard = bytearray(b"x" * request["bytes"])
            time.sleep(60)
            os._exit(len(hoard) % 1)
    time.sleep(60)
    return {}


def fork_bomb(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    time.sleep(60)
    return {}


def leave_behind(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    return {}


def loop(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    while True:
        pass


def ignore_stop(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.event({"type": "ready"})
    while True:
        time.sleep(1)


def segfault(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    ctypes.string_at(0)
    return {}


def leave(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    os._exit(request["code"])


def flood_output(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    while True:
        os.write(sys.stdout.fileno(), b"x" * 65536)


def flood_events(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    while True:
        channel.event({"type": "note", "message": "again"})


def babble(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    os.write(channel._events, request["text"].encode())
    return {"fine": True}


def fill_disk(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    for index in range(1000):
        (folder / f"{index}.bin").write_bytes(bytes(4 << 20))
        time.sleep(0.01)
    return {}


def time_something(folder: Path, request: Request, channel: Channel) -> Mapping[str, Any]:
    with channel.timing():
        began = time.time()
        time.sleep(request["s"])
        return {"began": began, "ended": time.time()}


def _readable(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return bool(file.read(1))
    except OSError:
        return False


def _listable(path: str) -> bool:
    try:
        return any(Path(path).iterdir())
    except OSError:
        return False


def _written(path: Path) -> bool:
    try:
        path.write_bytes(b"mine")
    except OSError:
        return False
    return True


def _reachable(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _signalled(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _exit_code_of_fork() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
