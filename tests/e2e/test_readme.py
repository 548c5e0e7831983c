"""What the README shows works as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from tests.e2e.conftest import Served, environment

README = Path(__file__).parents[2] / "README.md"
SESSION = re.compile(r"<!-- session -->\n```bash\n(.*?)```", re.DOTALL)


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the session is one with curl")
def test_the_pasted_curl_sessions_end_with_smaller_models(served: Served, tmp_path: Path) -> None:
    sessions = SESSION.findall(README.read_text())
    assert len(sessions) == 2
    session = "\n".join(sessions)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    root = str(README.parent)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", session.replace("http://127.0.0.1:8000", served.url)],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": root, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    small, original = tmp_path / "digits.small.onnx", tmp_path / "digits.onnx"
    assert small.stat().st_size < original.stat().st_size / 3
    assert onnxruntime.InferenceSession(os.fspath(small)).get_inputs()[0].name == "image"
    assert '"succeeded"' in done.stdout
    assert (tmp_path / "student.onnx").stat().st_size < original.stat().st_size / 2
    verdicts = re.findall(r'^"verdict":"(.*)"$', done.stdout, re.MULTILINE)
    assert len(verdicts) == 3
    assert all("accuracy" in verdict for verdict in verdicts), verdicts


def test_every_request_in_openapi_examples_is_json() -> None:
    examples = sorted((README.parent / "openapi" / "examples").glob("*.json"))
    assert examples
    for example in examples:
        assert "steps" in json.loads(example.read_text())
