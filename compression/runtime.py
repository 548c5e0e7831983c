"""The only place that opens onnxruntime sessions."""

import functools
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from compression.errors import CompressionError, DataMismatch, InvalidModel, ResultRejected
from compression.graph.saving import save
from compression.method import Device

PROVIDERS: Mapping[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
FATAL_ONLY = 4


def open_session(
    model: Path | ir.Model,
    *,
    device: Device,
    threads: int,
    outputs: Sequence[str] | None = None,
    optimize: bool = True,
    in_order: bool = False,
) -> onnxruntime.InferenceSession:
    """A session on a file or on a model in memory.

    Args:
        model: a file, or a model, which is written to a temporary folder for the session.
        device: where it runs.
        threads: intra-op threads; operators never run side by side.
        outputs: values in between that are returned too, after the model's own outputs (calibration).
            Only with a model in memory, which stays as it is.
        optimize: whether onnxruntime may rewrite the graph.
        in_order: run nodes in the order of the graph as far as they are ready, so that what is reduced right
            behind its producer need not be kept.

    Raises:
        InvalidModel: onnxruntime does not open the file.
        ResultRejected: onnxruntime does not open the model, which a step has made.
    """
    if isinstance(model, Path):
        return _open(model, InvalidModel, device, threads, optimize, in_order=in_order)
    with tempfile.TemporaryDirectory(prefix="session-") as folder:
        path = Path(folder) / "model.onnx"
        _save_with(model, outputs or (), path)
        return _open(path, ResultRejected, device, threads, optimize, in_order=in_order)


def run(session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """One inference: outputs by name. Sequences come as lists, empty optionals as None.

    Raises:
        DataMismatch: the feeds do not fit the inputs, or a node fails on them.
    """
    try:
        results = session.run(None, dict(feeds))
    except Exception as error:
        raise DataMismatch(
            f"onnxruntime fails on these inputs: {_reason(error)}",
            hint="compare the arrays' shapes and types with the model's inputs",
        ) from error
    return dict(zip((item.name for item in session.get_outputs()), results, strict=True))


def available_devices() -> tuple[Device, ...]:
    """Devices that this machine can run on: cpu always, cuda with the provider and a driver."""
    return ("cpu", "cuda") if _has_cuda() else ("cpu",)


def device_description(device: Device) -> str:
    """The processor or GPU and onnxruntime's version, for reports."""
    name = _gpu_name() if device == "cuda" else _processor_name()
    return f"{name}, onnxruntime {onnxruntime.__version__}"


def has_vnni() -> bool:
    """Whether the processor multiplies bytes natively (VNNI), without which U8S8 kernels may saturate."""
    return bool(_cpu_flags() & {"avx512_vnni", "avx_vnni", "avx512vnni", "avxvnni"})


def _open(
    path: Path,
    refusal: type[CompressionError],
    device: Device,
    threads: int,
    optimize: bool,
    *,
    in_order: bool,
) -> onnxruntime.InferenceSession:
    if device not in available_devices():
        raise refusal(f"this machine has no {device} device for onnxruntime")
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL_ONLY
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    if in_order:
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    providers = [PROVIDERS[device], *([PROVIDERS["cpu"]] if device != "cpu" else [])]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise refusal(f"onnxruntime does not open the model: {_reason(error)}") from error


def _save_with(model: ir.Model, outputs: Sequence[str], path: Path) -> None:
    graph = model.graph
    count = len(graph.outputs)
    known = {value.name for value in graph.outputs}
    values = {value.name: value for node in graph for value in node.outputs}
    missing = [name for name in outputs if name not in values and name not in known]
    if missing:
        raise ResultRejected(f"the model has no value {missing[0]!r}", where=missing[0])
    try:
        graph.outputs.extend(values[name] for name in outputs if name not in known)
        save(model, path)
    finally:
        graph.outputs[count:] = []  # `del` would leave the values marked as outputs.


def _reason(error: Exception) -> str:
    """The message without onnxruntime's codes and source paths."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.rpartition("[ONNXRuntimeError] :")[2].strip(" :")[:1000]


@functools.cache
def _has_cuda() -> bool:
    return PROVIDERS["cuda"] in onnxruntime.get_available_providers() and Path("/dev/nvidiactl").exists()


@functools.cache
def _processor_name() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def _gpu_name() -> str:
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in file.read_text().splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return "CUDA device"


@functools.cache
def _cpu_flags() -> frozenset[str]:
    for line in _cpuinfo():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace").splitlines() if path.exists() else []
