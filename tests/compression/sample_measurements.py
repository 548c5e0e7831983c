"""Measurements made up for tests and for looking at the pages."""

from compression.measurements import (
    Interval,
    Latency,
    LayerMeasurement,
    Measurements,
    MetricChange,
    ModelMeasurement,
    OutputFidelity,
)
from compression.verdict import verdict


def model(size_bytes=1_000_000, *, latency_ms=2.0, sparsity=0.0, metrics=None, layers=(), **other):
    fields = {
        "size_bytes": size_bytes,
        "zip_bytes": int(size_bytes * 0.92),
        "parameters": 250_000,
        "nonzero_parameters": int(250_000 * (1 - sparsity)),
        "sparsity": sparsity,
        "density": 1 - sparsity,
        "macs": 12_000_000,
        "load_ms": 3.1,
        "latency_ms": Latency(p50_ms=latency_ms, p90_ms=latency_ms * 1.1, runs=50) if latency_ms else None,
        "throughput_per_s": 1000 / latency_ms if latency_ms else None,
        "peak_memory_bytes": 4 * size_bytes,
        "metrics": metrics or {},
        "layers": tuple(layers),
    }
    return ModelMeasurement(**(fields | other))


def layer(name, *, op_type="Conv", dtype="float32", parameters=1000, sparsity=0.0, sqnr_db=None):
    width = {"float32": 4, "float16": 2, "int8": 1}[dtype]
    return LayerMeasurement(
        name=name,
        op_type=op_type,
        dtype=dtype,
        size_bytes=parameters * width,
        parameters=parameters,
        sparsity=sparsity,
        density=1 - sparsity,
        macs=parameters * 64,
        weight_sqnr_db=sqnr_db,
    )


def output(sqnr_db=34.0, **other):
    fields = {"cosine": 0.9998, "max_abs_error": 0.02, "agreement": 0.99, "exact": sqnr_db is None}
    return OutputFidelity(sqnr_db=sqnr_db, **(fields | other))


def interval(value, spread=0.0):
    return Interval(value=value, low=value - spread, high=value + spread)


def change(value, *, significant=False):
    spread = abs(value) / 2 if significant else abs(value) + 0.01
    return MetricChange(change=interval(value, spread), significant=significant)


def measurements(ratio=3.9, speed=0.96, *, spread=0.01, changes=None, fidelity=None, sparsity=0.0, **other):
    """`changes` maps a metric to its change and significance; the original stands at 0.95."""
    before = {name: interval(0.95, 0.02) for name in changes or {}}
    after = {name: interval(0.95 + value, 0.02) for name, (value, _) in (changes or {}).items()}
    latency = 2.0 / speed if speed else None
    fields = {
        "original": model(metrics=before, latency_ms=2.0 if speed else None),
        "compressed": model(int(1_000_000 / ratio), latency_ms=latency, metrics=after, sparsity=sparsity),
        "size_ratio": ratio,
        "speedup": interval(speed, spread) if speed else None,
        "fidelity": {"y": output()} if fidelity is None else fidelity,
        "metric_changes": {n: change(v, significant=s) for n, (v, s) in (changes or {}).items()},
        "data": "evaluation",
        "samples": 360,
        "batch_size": 1,
        "threads": 1,
        "device": "x86 processor, onnxruntime 1.32",
        "verdict": "",
    }
    measured = Measurements(**(fields | other))
    return measured.model_copy(update={"verdict": verdict(measured)})
