"""`python -m api demo`, as `make demo` runs it."""

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tests.e2e.conftest import environment


def test_the_demo_compares_three_jobs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(Path(tempfile.gettempdir()).glob("modelpress-*"))
    report = tmp_path / "comparison.html"
    command = [sys.executable, "-m", "api", "demo", "--report", str(report)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for job in ("weight-only int8", "static int8", "pruned 60%, static int8"):
        assert job in report.read_text()
    assert set(Path(tempfile.gettempdir()).glob("modelpress-*")) <= before
    assert not [
        child
        for child in psutil.Process().children(recursive=True)
        if "modelpress" in " ".join(child.cmdline())
    ]
