"""What an evaluation measures, as plain frozen values: stored on the job, compared without opening a model.

Sizes are bytes, times milliseconds, ratios original / compressed (more than 1 is smaller or faster).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Value(BaseModel):
    """Frozen, and finite throughout: databases and browsers refuse NaN and infinity in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(Value):
    """A figure with its 95% confidence interval."""

    value: float
    low: float
    high: float


class Latency(Value):
    p50_ms: float
    p90_ms: float
    runs: int


class LayerMeasurement(Value):
    """One layer of one model."""

    name: str
    op_type: str
    dtype: str = Field(description="stored type of the main weight")
    size_bytes: int = Field(
        description="of all that is stored for its weights: indices, codebooks and scales too"
    )
    parameters: int = Field(
        description="weights that it computes with, however few numbers are stored for them"
    )
    sparsity: float = Field(description="share of weights that are exactly zero")
    density: float = Field(description="share of weights that are not zero: 1 - sparsity")
    macs: int | None
    weight_sqnr_db: float | None = Field(
        None,
        description="signal to noise of the weights against the original's; null where equal or incomparable",
    )


class OutputFidelity(Value):
    """How near one output of the compressed model comes to the original's on the same inputs."""

    sqnr_db: float | None = Field(
        description="signal to noise within -200..200 dB; null where the outputs are equal, or hold integers"
    )
    cosine: float | None = Field(
        description="between the outputs as vectors over all samples; null for integers"
    )
    max_abs_error: float = Field(description="over the entries that are finite in both")
    agreement: float | None = Field(
        description="share of rows with the largest entry at the same place; for integers, of equal entries"
    )
    exact: bool = Field(description="equal on every sample")
    finite: bool = Field(True, description="neither model's output holds NaN or infinity")
    newly_nonfinite: bool = Field(
        False, description="the compressed model gives NaN or infinity where the original gives a number"
    )


class ModelMeasurement(Value):
    """One model, measured."""

    size_bytes: int = Field(description="the file, external data included")
    zip_bytes: int = Field(
        description="the same file under deflate: what zeros and repeats are worth in storage"
    )
    packed_bytes: int | None = Field(
        None, description="the file as `model.packed`; null where the last step was not `pack`"
    )
    parameters: int = Field(
        description="weights that the layers compute with, however few numbers are stored for them"
    )
    nonzero_parameters: int
    sparsity: float = Field(description="share of weights that are exactly zero")
    density: float = Field(description="share of weights that are not zero: 1 - sparsity")
    macs: int | None
    load_ms: float = Field(description="to open the model in onnxruntime")
    latency_ms: Latency | None = Field(description="null where no input could be made")
    throughput_per_s: float | None = Field(description="samples per second at the measured batch size")
    peak_memory_bytes: int | None = Field(
        description="resident memory gained by loading and running the model"
    )
    metrics: dict[str, Interval] = Field(default_factory=dict, description="task metrics on labelled data")
    layers: tuple[LayerMeasurement, ...] = ()


class MetricChange(Value):
    """Change of a task metric from original to compressed on the same samples (paired)."""

    change: Interval
    significant: bool = Field(description="the 95% interval of the paired change excludes zero")


class Measurements(Value):
    """Original and compressed side by side, measured in one run, alternating."""

    original: ModelMeasurement
    compressed: ModelMeasurement
    size_ratio: float = Field(description="original size / compressed size")
    speedup: Interval | None = Field(
        description="median of paired original / compressed latencies, with its spread"
    )
    fidelity: dict[str, OutputFidelity] = Field(description="by output name")
    incomparable: tuple[str, ...] = Field(
        (), description="outputs left out of `fidelity`: shapes differ between the models, or strings"
    )
    metric_changes: dict[str, MetricChange] = Field(default_factory=dict)
    data: Literal["evaluation", "calibration", "training", "synthetic"] = Field(
        description="what the models ran on; synthetic inputs are drawn from the declared shapes"
    )
    samples: int
    batch_size: int
    threads: int
    device: str = Field(description="processor or GPU, and onnxruntime's version")
    verdict: str = Field(description="one sentence that does not flatter")
    notes: tuple[str, ...] = ()
