"""Resident memory that a model takes, measured in a fresh process of its own.

    python -m compression.evaluation.memory MODEL INPUTS.npz DEVICE THREADS

loads the model, runs it once and prints the bytes that its resident memory gained at the highest point. A
process of its own is needed: memory that an earlier model has freed stays with the allocator and would hide
the next one's.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import compression
from compression.method import Device

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
TIMEOUT_S = 120.0


def peak_memory_bytes(
    model: Path, feeds: dict[str, np.ndarray] | None, *, device: Device, threads: int, workdir: Path
) -> int | None:
    """Bytes gained by loading `model` and running it once; None where this cannot be measured here.

    Without `feeds` only loading counts. GPU memory is not resident memory, so there is no figure on a GPU.
    """
    if device != "cpu" or not STATUS.exists():
        return None
    inputs = workdir / "memory-inputs.npz"
    arrays: dict[str, Any] = _numbered(feeds or {})
    np.savez(inputs, **arrays)
    command = [
        sys.executable,
        "-m",
        __name__,
        str(model.resolve()),
        str(inputs.resolve()),
        device,
        str(threads),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=Path(compression.__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        return int(done.stdout.split()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    finally:
        inputs.unlink(missing_ok=True)


def _numbered(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Input names are no safe file names inside the archive, so arrays are numbered in order of the names."""
    return {f"input{i}": feeds[name] for i, name in enumerate(sorted(feeds))}


def _gained(model: Path, inputs: Path, device: Device, threads: int) -> int:
    from compression import runtime

    with np.load(inputs, allow_pickle=False) as archive:
        arrays = [archive[f"input{i}"] for i in range(len(archive.files))]
    _warm_up()
    _reset_peak()
    before = _status_bytes("VmRSS")
    session = runtime.open_session(model, device=device, threads=threads)
    names = sorted(tensor.name for tensor in session.get_inputs())
    if len(arrays) == len(names):
        runtime.run(session, dict(zip(names, arrays, strict=True)))
    return max(_status_bytes("VmHWM") - before, 0)


def _warm_up() -> None:
    """Runs a trivial model, so that what the library takes once is not counted as the model's."""
    from compression import runtime

    kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1])
    given = ir.Value(name="x", type=kind, shape=shape)
    node = ir.node("Add", [given, given])
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", kind, shape
    graph = ir.Graph([given], node.outputs, nodes=[node], opset_imports={"": 17}, name="trivial")
    session = runtime.open_session(ir.Model(graph, ir_version=8), device="cpu", threads=1)
    runtime.run(session, {"x": np.ones(1, np.float32)})


def _reset_peak() -> None:
    """Start VmHWM again from what is resident now; where that is not allowed it is little more anyway."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return


def _status_bytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    model_path, inputs_path, on, thread_count = sys.argv[1:]
    print(_gained(Path(model_path), Path(inputs_path), "cuda" if on == "cuda" else "cpu", int(thread_count)))
