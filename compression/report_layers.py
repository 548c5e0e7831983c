"""The steps and the layers of a job's report, as texts and lengths for the template."""

from collections.abc import Iterator, Mapping
from typing import Any

from compression.figures import MISSING, figure
from compression.measurements import LayerMeasurement, Measurements

BAR_WIDTH = 210

View = dict[str, Any]


def step_view(step: Mapping[str, Any]) -> View:
    layers = step.get("layers", ())
    changed = sum(bool(layer["changed"]) for layer in layers)
    facts = [
        f"{step['seconds']:.1f} s" if "seconds" in step else "",
        f"{figure(step['size_bytes'], 'bytes')} afterwards" if "size_bytes" in step else "",
    ]
    return {
        "method": step["method"],
        "summary": " · ".join(fact for fact in facts if fact),
        "parameters": list(_parameters(step.get("parameters", {}))),
        "notes": list(step.get("notes", ())),
        "layers": [_layer_outcome(layer) for layer in layers],
        "layers_title": f"{changed} of {len(layers)} layers changed",
    }


def _parameters(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name, value in parameters.items():
        if name == "layers" and isinstance(value, Mapping):
            chosen = ", ".join(value.get("include", ()))
            left_out = ", ".join(value.get("exclude", ()))
            yield f"layers: {chosen}" + (f" without {left_out}" if left_out else "")
        elif name != "method" and value is not None:
            yield f"{name}: {_said(value)}"


def _said(value: Any) -> str:
    """Nested parameters as words, those that are not set left out."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_said, value))
    return str(value)


def _layer_outcome(layer: Mapping[str, Any]) -> View:
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in layer.get("numbers", {}).items())
    return {
        "name": layer["layer"],
        "changed": "yes" if layer["changed"] else "no",
        "note": layer["note"],
        "numbers": numbers,
    }


def layer_views(measured: Measurements) -> Iterator[View]:
    """All layers of either model, the largest first; matched by name."""
    before = {layer.name: layer for layer in measured.original.layers}
    after = {layer.name: layer for layer in measured.compressed.layers}
    names = sorted(before | after, key=lambda name: -_largest(before.get(name), after.get(name)))
    largest = max((_largest(before.get(name), after.get(name)) for name in names), default=1) or 1
    for name in names:
        yield _layer(name, before.get(name), after.get(name), BAR_WIDTH / largest)


def _largest(*layers: LayerMeasurement | None) -> int:
    return max(layer.size_bytes for layer in layers if layer is not None)


def _layer(name: str, before: LayerMeasurement | None, after: LayerMeasurement | None, scale: float) -> View:
    now = after or before
    assert now is not None
    was = f"from {figure(before.size_bytes, 'bytes')}" if before else "new"
    return {
        "name": name,
        "op_type": _change_of(before.op_type if before else None, now.op_type),
        "before_width": round(before.size_bytes * scale, 1) if before else 0,
        "after_width": round(after.size_bytes * scale, 1) if after else 0,
        "size": figure(after.size_bytes, "bytes") if after else "gone",
        "size_before": "" if before and after and before.size_bytes == after.size_bytes else was,
        "dtype": after.dtype if after else MISSING,
        "dtype_before": f"from {before.dtype}" if before and after and before.dtype != after.dtype else "",
        "sparsity": figure(after.sparsity if after else None, "share"),
        "macs": figure(after.macs if after else None, ""),
        "noise": figure(after.weight_sqnr_db, "dB")
        if after and after.weight_sqnr_db is not None
        else MISSING,
    }


def _change_of(before: str | None, now: str) -> str:
    return now if before in {None, now} else f"{before} → {now}"
