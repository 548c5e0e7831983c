"""What a comparison is made of: entries that go in; columns, rows and the whole table that come out."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from compression.measurements import Measurements
from compression.verdict import ERROR_METRICS, METRIC_ORDER

Better = Literal["lower", "higher", "none"]
Number = int | float | None


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Entry(Value):
    """One finished job to compare."""

    id: str
    name: str
    model_id: str
    model_name: str
    measurements: Measurements
    evaluation_data: str | None = Field(
        None, description="id of the dataset it was evaluated on, where there was one"
    )


class Column(Value):
    key: str
    title: str
    unit: str = Field(description="bytes, ms, x, share, dB, 1/s, or empty for a plain number")
    better: Better
    main: bool = Field(False, description="among the few that tell most: enough for a short table")


class Row(Value):
    """An original model, or a job's result."""

    id: str = Field(description="the job's id, or the model's for an original")
    name: str
    kind: Literal["original", "job"]
    model_id: str
    model_name: str
    values: dict[str, Number] = Field(description="by column; null where not measured")
    deltas: dict[str, Number] = Field(
        description="value minus the original's, by column; empty for an original"
    )
    text: dict[str, str] = Field(description="the values as people read them, by column")
    best: tuple[str, ...] = Field((), description="columns in which no other row is better")
    exact: bool = Field(description="outputs are equal to the original's")
    speed: str = Field(description="faster, slower, within noise or not measured; 'original' for an original")
    pareto: bool = Field(
        False, description="no other row is at least as good in size, quality and latency and better in one"
    )
    verdict: str


class Comparison(Value):
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    quality: str = Field(description="key of the column that stands for quality in the Pareto front")
    warnings: tuple[str, ...] = Field((), description="why some rows should not be compared with others")


FIXED_COLUMNS = (
    Column(key="size_bytes", title="Size", unit="bytes", better="lower", main=True),
    Column(key="size_ratio", title="Times smaller", unit="x", better="higher", main=True),
    Column(key="zip_bytes", title="Zipped", unit="bytes", better="lower"),
    Column(key="packed_bytes", title="Packed", unit="bytes", better="lower"),
    Column(key="parameters", title="Parameters", unit="", better="lower"),
    Column(key="nonzero_parameters", title="Non-zero", unit="", better="lower"),
    Column(key="sparsity", title="Sparsity (zeros)", unit="share", better="none", main=True),
    Column(key="density", title="Density (non-zeros)", unit="share", better="none"),
    Column(key="macs", title="MACs", unit="", better="lower", main=True),
    Column(key="load_ms", title="Load", unit="ms", better="lower"),
    Column(key="latency_p50_ms", title="Latency p50", unit="ms", better="lower", main=True),
    Column(key="latency_p90_ms", title="Latency p90", unit="ms", better="lower"),
    Column(key="speedup", title="Speedup", unit="x", better="higher", main=True),
    Column(key="throughput_per_s", title="Throughput", unit="1/s", better="higher"),
    Column(key="peak_memory_bytes", title="Peak memory", unit="bytes", better="lower"),
)
FIDELITY_COLUMNS = (
    Column(key="sqnr_db", title="SQNR, worst output", unit="dB", better="higher", main=True),
    Column(key="cosine", title="Cosine, worst output", unit="", better="higher"),
    Column(key="max_abs_error", title="Largest error", unit="", better="lower"),
    Column(key="agreement", title="Agreement, worst output", unit="share", better="higher"),
)


def metric_columns(entries: Sequence[Entry]) -> Iterator[Column]:
    for name in METRIC_ORDER:
        if any(name in entry.measurements.compressed.metrics for entry in entries):
            is_error = name in ERROR_METRICS
            yield Column(
                key=name,
                title=name.upper() if is_error else name.replace("top5", "top-5").capitalize(),
                unit="" if is_error else "share",
                better="lower" if is_error else "higher",
                main=name in {"accuracy", "f1", "mse", "mae"},
            )
