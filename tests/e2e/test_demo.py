"""`python -m api demo`, as `make demo` runs it."""

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import environment


@pytest.mark.timeout(600)
def test_the_demo_compares_three_jobs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    report = tmp_path / "comparison.html"
    command = [sys.executable, "-m", "api", "demo", "--report", str(report)]
    # A short path of its own: the name of a socket has little room.
    with tempfile.TemporaryDirectory(prefix="demo-") as scratch:
        done = subprocess.run(
            command,
            env=environment() | {"TMPDIR": scratch},
            capture_output=True,
            text=True,
            check=False,
            timeout=580,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not [path.name for path in Path(scratch).glob("modelpress-*") if path.is_dir()]
        assert not [process for process in psutil.process_iter(["cmdline"]) if _mentions(process, scratch)]
    for job in ("weight-only int8", "static int8", "pruned 60%, static int8"):
        assert job in report.read_text()


def _mentions(process: psutil.Process, text: str) -> bool:
    return any(text in part for part in process.info["cmdline"] or ())
