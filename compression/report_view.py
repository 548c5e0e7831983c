"""What a job's report shows, worked out from its document: plain texts and lengths for the template."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compression.figures import MISSING, difference, figure
from compression.measurements import (
    Interval,
    Measurements,
    ModelMeasurement,
    OutputFidelity,
)
from compression.report_layers import View, layer_views, step_view
from compression.verdict import ERROR_METRICS, METRIC_ORDER, primary_metric, speed_word, worse, worst_sqnr

SHOWN_LAYERS = 20

_DATA = {
    "evaluation": "the evaluation data",
    "calibration": "the calibration data",
    "training": "inputs of the training data",
    "synthetic": "synthetic inputs",
}


def report_view(document: Mapping[str, Any]) -> View:
    """The variables of report.html.j2 for a document as `render_report_html` takes it."""
    measured = Measurements.model_validate(document["measurements"])
    layers = list(layer_views(measured))
    return {
        "name": document.get("name") or document.get("model_name") or "Compressed model",
        "verdict": _sentence(measured.verdict),
        "setting": _setting(document, measured),
        "cards": list(_cards(measured)),
        "notes": [*document.get("notes", ()), *measured.notes],
        "figures": list(_figures(measured)),
        "metrics": list(_metrics(measured)),
        "samples": measured.samples,
        "outputs": [_output(name, fidelity) for name, fidelity in measured.fidelity.items()],
        "fidelity_text": _fidelity_text(measured),
        "steps": [step_view(step) for step in document.get("steps", ())],
        "layers": layers[:SHOWN_LAYERS],
        "more_layers": layers[SHOWN_LAYERS:],
        "layers_text": _layers_text(len(layers)),
        "footer": _footer(document, measured),
    }


def _sentence(verdict: str) -> str:
    return verdict[:1].upper() + verdict[1:] + "."


def _setting(document: Mapping[str, Any], measured: Measurements) -> str:
    samples = f"{measured.samples} sample{'' if measured.samples == 1 else 's'} of {_DATA[measured.data]}"
    parts = [document.get("model_name"), document.get("job_id"), document.get("created_at")]
    return " · ".join([*(str(part) for part in parts if part), f"measured on {samples}"])


def _cards(measured: Measurements) -> Iterator[View]:
    before, after = measured.original, measured.compressed
    yield _card(
        "Size", before.size_bytes, after.size_bytes, "bytes", figure(measured.size_ratio, "x") + " smaller"
    )
    if before.latency_ms and after.latency_ms and measured.speedup:
        speed = measured.speedup
        text = f"{figure(speed.value, 'x')} ({speed.low:.2f} to {speed.high:.2f}), {speed_word(speed)}"
        yield _card("Latency, median", before.latency_ms.p50_ms, after.latency_ms.p50_ms, "ms", text)
    yield _quality_card(measured)
    if before.peak_memory_bytes and after.peak_memory_bytes is not None:
        yield _card("Peak memory", before.peak_memory_bytes, after.peak_memory_bytes, "bytes")


def _card(title: str, before: float, after: float, unit: str, detail: str = "") -> View:
    if unit == "bytes" and after >= 0.995 * before:
        detail = ""
    change = detail or difference(after, before, unit) or "unchanged"
    return {
        "title": title,
        "value": figure(after, unit),
        "detail": f"from {figure(before, unit)} · {change}",
        "share": round(min(100 * after / before, 100.0), 1) if before else None,
    }


def _quality_card(measured: Measurements) -> View:
    name = primary_metric(measured)
    if name is not None:
        before, after = measured.original.metrics[name].value, measured.compressed.metrics[name].value
        unit = "" if name in ERROR_METRICS else "share"
        change = difference(after, before, unit) or "unchanged"
        mark = "" if measured.metric_changes[name].significant or before == after else ", not significant"
        share = None if unit == "" else round(100 * after, 1)
        return {
            "title": _metric_title(name),
            "value": figure(after, unit),
            "detail": f"from {figure(before, unit)} · {change}{mark}",
            "share": share,
        }
    worst = worst_sqnr(measured)
    exact = measured.fidelity and all(output.exact for output in measured.fidelity.values())
    value = figure(worst[1], "dB") if worst else "equal" if exact else MISSING
    where = (
        f"worst output, on {_DATA[measured.data]}"
        if len(measured.fidelity) > 1
        else f"on {_DATA[measured.data]}"
    )
    return {"title": "Output fidelity (SQNR)", "value": value, "detail": where, "share": None}


def _metric_title(name: str) -> str:
    return name.upper() if name in ERROR_METRICS else name.replace("top5", "top-5").capitalize()


def _figures(measured: Measurements) -> Iterator[View]:
    for title, field, unit in (
        ("File size", "size_bytes", "bytes"),
        ("File size under deflate", "zip_bytes", "bytes"),
        ("File size packed", "packed_bytes", "bytes"),
        ("Parameters", "parameters", ""),
        ("Non-zero parameters", "nonzero_parameters", ""),
        ("Sparsity (share of zeros)", "sparsity", "share"),
        ("Density (share of non-zeros)", "density", "share"),
        ("Multiply-accumulates per sample", "macs", ""),
        ("Load time", "load_ms", "ms"),
        ("Latency, median", "latency_p50_ms", "ms"),
        ("Latency, 90th percentile", "latency_p90_ms", "ms"),
        ("Throughput, samples", "throughput_per_s", "1/s"),
        ("Peak memory", "peak_memory_bytes", "bytes"),
    ):
        before, after = _value(measured.original, field), _value(measured.compressed, field)
        if before is not None or after is not None:
            change = difference(after, before, unit) or ("unchanged" if before == after else "")
            yield {
                "title": title,
                "before": figure(before, unit),
                "after": figure(after, unit),
                "change": change,
            }


def _value(model: ModelMeasurement, field: str) -> float | None:
    if field.startswith("latency_"):
        latency = model.latency_ms
        return getattr(latency, field.removeprefix("latency_")) if latency else None
    value: float | None = getattr(model, field)
    return value


def _metrics(measured: Measurements) -> Iterator[View]:
    for name in METRIC_ORDER:
        if name not in measured.metric_changes:
            continue
        change = measured.metric_changes[name]
        unit = "" if name in ERROR_METRICS else "share"
        before, after = measured.original.metrics[name], measured.compressed.metrics[name]
        yield {
            "title": _metric_title(name),
            "before": figure(before.value, unit),
            "before_range": _range(before, unit),
            "after": figure(after.value, unit),
            "after_range": _range(after, unit),
            "change": difference(after.value, before.value, unit) or "unchanged",
            "change_range": _change_range(change.change, unit),
            "significant": "yes" if change.significant else "no",
            "worse": change.significant and worse(name, change.change.value),
        }


def _range(interval: Interval, unit: str) -> str:
    return f"({figure(interval.low, unit)} to {figure(interval.high, unit)})"


def _change_range(interval: Interval, unit: str) -> str:
    scale = 100 if unit == "share" else 1
    low, high = (_signed(scale * value) for value in (interval.low, interval.high))
    return f"({low} to {high})"


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−") if value else "0"


def _output(name: str, fidelity: OutputFidelity) -> View:
    remarks = (
        "equal" if fidelity.exact else "",
        "NaN or infinity where the original gives numbers" if fidelity.newly_nonfinite else "",
        "holds NaN or infinity" if not fidelity.finite and not fidelity.newly_nonfinite else "",
    )
    return {
        "name": name,
        "sqnr": figure(fidelity.sqnr_db, "dB"),
        "cosine": MISSING if fidelity.cosine is None else f"{fidelity.cosine:.5f}",
        "error": figure(fidelity.max_abs_error, ""),
        "agreement": figure(fidelity.agreement, "share"),
        "remark": ", ".join(remark for remark in remarks if remark),
    }


def _fidelity_text(measured: Measurements) -> str:
    if measured.data == "synthetic":
        return (
            "On synthetic inputs drawn from the declared shapes: a hint that the compressed model still "
            "computes the same, no measure of how well it does its task. Agreement is the share of rows "
            "whose largest entry is at the same place, for integers the share of equal entries."
        )
    return (
        f"On {_DATA[measured.data]}, without looking at labels. SQNR is signal to noise: 20 dB is an error "
        "of a tenth of the output's size, 40 dB of a hundredth. Agreement is the share of rows whose "
        "largest entry is at the same place, for integers the share of equal entries."
    )


def _layers_text(count: int) -> str:
    shown = f"The {SHOWN_LAYERS} largest of {count} layers" if count > SHOWN_LAYERS else f"All {count} layers"
    return (
        f"{shown}: the pale bar is the size of the weights before, the strong one after. Weight SQNR is "
        "measured on the weights as the layer computes with them; a dash stands where they are equal or "
        "cannot be compared."
    )


def _footer(document: Mapping[str, Any], measured: Measurements) -> str:
    runs = measured.original.latency_ms.runs if measured.original.latency_ms else 0
    parts: Sequence[str] = (
        measured.device,
        f"batch size {measured.batch_size}",
        f"{measured.threads} thread{'' if measured.threads == 1 else 's'}",
        f"{runs} timed runs of each model, alternating" if runs else "",
        f"seed {document['seed']}" if "seed" in document else "",
        *(f"{name} {version}" for name, version in document.get("versions", {}).items()),
    )
    return " · ".join(part for part in parts if part)
