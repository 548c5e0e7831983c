"""Many measurements side by side: rows, differences, best values, Pareto front and warnings; all pure."""

import csv
import io
from collections.abc import Iterator, Sequence
from statistics import median

from compression.comparison_table import (
    FIDELITY_COLUMNS,
    FIXED_COLUMNS,
    Column,
    Comparison,
    Entry,
    Number,
    Row,
    metric_columns,
)
from compression.figures import figure
from compression.measurements import Measurements, ModelMeasurement
from compression.pareto import pareto_front
from compression.verdict import ERROR_METRICS, METRIC_ORDER, speed_word, verdict, worst_sqnr

__all__ = ["Column", "Comparison", "Entry", "Row", "compare", "to_csv", "verdict"]


def compare(entries: Sequence[Entry]) -> Comparison:
    """Put finished jobs and their originals in one table.

    Every distinct model gives a row of its own, before its jobs. Its latency is the median over its jobs.
    """
    columns = (*FIXED_COLUMNS, *metric_columns(entries), *FIDELITY_COLUMNS)
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.model_id, []).append(entry)
    rows = tuple(row for group in groups.values() for row in _group_rows(group, columns))
    quality = _quality_key(entries)
    return Comparison(
        columns=columns,
        rows=_with_front(_with_best(rows, columns), quality, per_model=quality == "sqnr_db"),
        quality=quality,
        warnings=tuple(_warnings(entries, quality)),
    )


def to_csv(comparison: Comparison) -> str:
    """The table as CSV: one line per row, values, then differences, in plain units.

    Texts that a spreadsheet would take for a formula are quoted with an apostrophe.
    """
    keys = [column.key for column in comparison.columns]
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\r\n")
    deltas = [f"delta_{key}" for key in keys]
    writer.writerow(["id", "name", "kind", "model_id", "model_name", *keys, *deltas, "pareto", "verdict"])
    for row in comparison.rows:
        texts = [_safe(text) for text in (row.id, row.name, row.kind, row.model_id, row.model_name)]
        figures = [row.values.get(key) for key in keys] + [row.deltas.get(key) for key in keys]
        writer.writerow([*texts, *figures, str(row.pareto).lower(), _safe(row.verdict)])
    return target.getvalue()


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _quality_key(entries: Sequence[Entry]) -> str:
    """The first metric that every entry has, else the fidelity of the worst output."""
    for name in METRIC_ORDER:
        if entries and all(name in entry.measurements.compressed.metrics for entry in entries):
            return name
    return "sqnr_db"


def _group_rows(group: Sequence[Entry], columns: Sequence[Column]) -> Iterator[Row]:
    original = _original_row(group, columns)
    yield original
    for entry in group:
        yield _job_row(entry, original, columns)


def _original_row(group: Sequence[Entry], columns: Sequence[Column]) -> Row:
    first = group[0]
    values = _model_values(first.measurements.original) | {"size_ratio": 1.0}
    timed = [entry.measurements.original for entry in group if entry.measurements.original.latency_ms]
    if timed:
        values["speedup"] = 1.0
        values["latency_p50_ms"] = median(m.latency_ms.p50_ms for m in timed if m.latency_ms)
        values["latency_p90_ms"] = median(m.latency_ms.p90_ms for m in timed if m.latency_ms)
    return Row(
        id=first.model_id,
        name=first.model_name,
        kind="original",
        model_id=first.model_id,
        model_name=first.model_name,
        values={column.key: values.get(column.key) for column in columns},
        deltas={},
        text=_texts(values, columns, exact=True),
        exact=True,
        speed="original",
        verdict="the original",
    )


def _job_row(entry: Entry, original: Row, columns: Sequence[Column]) -> Row:
    measured = entry.measurements
    found = _model_values(measured.compressed) | _pair_values(measured)
    values = {column.key: found.get(column.key) for column in columns}
    exact = bool(measured.fidelity) and all(output.exact for output in measured.fidelity.values())
    return Row(
        id=entry.id,
        name=entry.name,
        kind="job",
        model_id=entry.model_id,
        model_name=entry.model_name,
        values=values,
        deltas={key: _difference(value, original.values[key]) for key, value in values.items()},
        text=_texts(values, columns, exact=exact),
        exact=exact,
        speed=speed_word(measured.speedup),
        verdict=measured.verdict,
    )


def _texts(values: dict[str, Number], columns: Sequence[Column], *, exact: bool) -> dict[str, str]:
    texts = {column.key: figure(values.get(column.key), column.unit) for column in columns}
    return texts | ({"sqnr_db": "equal"} if exact else {})


def _model_values(model: ModelMeasurement) -> dict[str, Number]:
    latency = model.latency_ms
    return {
        "size_bytes": model.size_bytes,
        "zip_bytes": model.zip_bytes,
        "packed_bytes": model.packed_bytes,
        "parameters": model.parameters,
        "nonzero_parameters": model.nonzero_parameters,
        "sparsity": model.sparsity,
        "density": model.density,
        "macs": model.macs,
        "load_ms": model.load_ms,
        "latency_p50_ms": latency.p50_ms if latency else None,
        "latency_p90_ms": latency.p90_ms if latency else None,
        "throughput_per_s": model.throughput_per_s,
        "peak_memory_bytes": model.peak_memory_bytes,
        **{name: interval.value for name, interval in model.metrics.items()},
    }


def _pair_values(measured: Measurements) -> dict[str, Number]:
    outputs = list(measured.fidelity.values())
    worst = worst_sqnr(measured)
    return {
        "size_ratio": measured.size_ratio,
        "speedup": measured.speedup.value if measured.speedup else None,
        "sqnr_db": worst[1] if worst else None,
        "cosine": min((o.cosine for o in outputs if o.cosine is not None), default=None),
        "max_abs_error": max((o.max_abs_error for o in outputs), default=None),
        "agreement": min((o.agreement for o in outputs if o.agreement is not None), default=None),
    }


def _difference(value: Number, before: Number) -> Number:
    return None if value is None or before is None else value - before


def _with_best(rows: tuple[Row, ...], columns: Sequence[Column]) -> tuple[Row, ...]:
    winners = {column.key: _best_value(rows, column) for column in columns}
    won = [
        tuple(key for key, best in winners.items() if best is not None and _ranked(row, key) == best)
        for row in rows
    ]
    return tuple(row.model_copy(update={"best": best}) for row, best in zip(rows, won, strict=True))


def _best_value(rows: Sequence[Row], column: Column) -> Number:
    """The best value, or None where nothing is to be won: fewer than two values, or all the same."""
    values = [value for row in rows if (value := _ranked(row, column.key)) is not None]
    if column.better == "none" or len(set(values)) < 2:
        return None
    return min(values) if column.better == "lower" else max(values)


def _ranked(row: Row, key: str) -> Number:
    """Equal outputs have no noise: no decibels are better."""
    return float("inf") if key == "sqnr_db" and row.exact and row.kind == "job" else row.values[key]


def _with_front(rows: tuple[Row, ...], quality: str, *, per_model: bool) -> tuple[Row, ...]:
    """Mark the rows that no other dominates; fidelity compares only rows of one model, a task metric all."""
    front = pareto_front(
        [_point(row, rows, quality) for row in rows], [row.model_id if per_model else "" for row in rows]
    )
    return tuple(row.model_copy(update={"pareto": flag}) for row, flag in zip(rows, front, strict=True))


def _point(row: Row, rows: Sequence[Row], quality: str) -> tuple[float, float, float]:
    """(size, -quality, latency), less is better in each; what was not measured is infinitely bad.

    A job's latency is the original's divided by the paired speedup, so that runs of different days share one
    clock.
    """
    size = row.values["size_bytes"]
    value = row.values[quality]
    if quality == "sqnr_db" and row.exact:
        value = float("inf")
    if value is not None and quality not in ERROR_METRICS:
        value = -value
    original = next(r for r in rows if r.kind == "original" and r.model_id == row.model_id)
    latency, speedup = original.values["latency_p50_ms"], row.values["speedup"]
    return (
        float("inf") if size is None else size,
        float("inf") if value is None else value,
        float("inf") if latency is None or not speedup else latency / speedup,
    )


def _warnings(entries: Sequence[Entry], quality: str) -> Iterator[str]:
    checks = (
        ("evaluation data", {e.evaluation_data or f"{e.measurements.data} data" for e in entries}),
        ("numbers of samples", {str(e.measurements.samples) for e in entries}),
        ("devices", {e.measurements.device for e in entries}),
        ("batch sizes", {str(e.measurements.batch_size) for e in entries}),
        ("thread counts", {str(e.measurements.threads) for e in entries}),
    )
    for what, found in checks:
        if len(found) > 1:
            yield f"Measured with different {what} ({', '.join(sorted(found))}): compare with care."
    if len({entry.model_id for entry in entries}) > 1 and quality == "sqnr_db":
        yield "Fidelity compares each result with its own original: it says nothing across different models."
    if quality == "sqnr_db" and any(entry.measurements.compressed.metrics for entry in entries):
        yield "Only some rows have a task metric: the Pareto front uses fidelity instead."
