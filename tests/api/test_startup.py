"""The API is light: it never loads what computes. How fast it starts is measured in benchmarks/service.md."""

import subprocess
import sys

HEAVY = ("torch", "onnxruntime", "onnx", "onnx_ir", "onnxscript", "sklearn", "worker")
PROGRAM = f"""
import sys
from pathlib import Path
from api.app import create_app
from db.settings import Settings
app = create_app(Settings(data=Path(sys.argv[1])))
app.openapi()
print([name for name in {HEAVY!r} if name in sys.modules])
"""


def test_starts_without_what_computes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
