"""What a child cannot see or touch, at every level that the platform allows."""

import os
import socket
from pathlib import Path

import pytest

from tests.worker.conftest import LIMITS
from worker import landlock, seccomp
from worker.isolation import Isolation
from worker.sandbox import Sandbox

LOOK = "tests.worker.hostile:look_around"
ASK = {"paths": [], "folders": [], "ports": [], "pids": []}


@pytest.fixture(autouse=True)
def _needs_a_fence(sandbox: Sandbox):
    """Without namespaces, files and the network are kept away by the kernel's newer fences alone."""
    fenced = landlock.version() > 0 and seccomp.supported()
    if sandbox.level is Isolation.RLIMITS and not fenced:
        pytest.skip("this kernel has neither namespaces nor Landlock for us")


def look(sandbox: Sandbox, **ask: object) -> dict:
    with sandbox.folder("look") as folder:
        return dict(sandbox.run(LOOK, folder, ASK | ask, limits=LIMITS))


def test_the_environment_holds_no_secret(sandbox, monkeypatch):
    monkeypatch.setenv("MODELPRESS_S3_SECRET_KEY", "hunter2")
    seen = look(sandbox)["environment"]
    assert "hunter2" not in str(seen)
    assert not [name for name in seen if name.startswith(("MODELPRESS", "AWS", "PG"))]


def test_no_other_process_can_be_read_or_signalled(sandbox):
    others = [os.getpid(), sandbox.parent_pid, 1]
    paths = [f"/proc/{pid}/{name}" for pid in others for name in ("environ", "mem", "maps")]
    readable_here = [path for path in paths if Path(path).exists()]
    assert readable_here
    own = {"/proc/1/environ", "/proc/1/maps"}  # 1 is the warm parent itself where it has its own processes.
    seen = look(sandbox, paths=paths, pids=[os.getpid(), sandbox.parent_pid])
    assert set(seen["readable"]) <= (set() if sandbox.level is Isolation.RLIMITS else own)
    assert seen["signalled"] == []


def test_files_of_the_service_cannot_be_read(sandbox, tmp_path):
    database = tmp_path / "modelpress.sqlite3"
    database.write_text("rows")
    seen = look(sandbox, paths=[str(database), "/etc/passwd", "/etc/shadow"], folders=["/root", "/home"])
    assert seen["readable"] == []
    assert seen["listable"] == []


def test_other_jobs_folders_cannot_be_read_or_written(sandbox):
    with sandbox.folder("other") as other, sandbox.folder("own") as own:
        (other / "model.onnx").write_text("secret")
        ask = ASK | {"paths": [str(other / "model.onnx")], "folders": [str(other)]}
        seen = sandbox.run(LOOK, own, ask, limits=LIMITS)
        assert (seen["readable"], seen["listable"]) == ([], [])
        request = {"paths": [str(other / "model.onnx"), "/tmp/mine", "/dev/shm/mine", "/mine"]}
        assert sandbox.run("tests.worker.hostile:write_outside", own, request, limits=LIMITS) == {
            "written": []
        }
        assert (other / "model.onnx").read_text() == "secret"


def test_its_own_folder_can_be_written(sandbox):
    with sandbox.folder("own") as own:
        request = {"paths": [str(own / "result")]}
        sandbox.run("tests.worker.hostile:write_outside", own, request, limits=LIMITS)
        assert (own / "result").read_bytes() == b"mine"


def test_no_network_is_reachable(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            pass
        assert look(sandbox, ports=[port])["reachable"] == []


def test_a_process_of_its_own_may_be_started(sandbox):
    """A model's peak memory is measured in one."""
    assert look(sandbox)["forked"] == 7
