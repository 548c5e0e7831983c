"""What an evaluation measures, as plain frozen values: stored on the job, compared without opening a model again.

Sizes are bytes, times milliseconds, ratios original / compressed (more than 1 is smaller or faster).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
    size_bytes: int
    parameters: int
    sparsity: float = Field(description="share of weights that are exactly zero")
    density: float = Field(description="share of weights that are not zero: 1 - sparsity")
    macs: int | None
    weight_sqnr_db: float | None = Field(
        None, description="signal to quantization noise of the weights against the original's; null where equal or gone"
    )


class OutputFidelity(Value):
    """How near one output of the compressed model comes to the original's on the same inputs."""

    sqnr_db: float | None = Field(description="null where the outputs are equal to the last bit, or not comparable")
    cosine: float | None
    max_abs_error: float
    agreement: float | None = Field(description="share of samples whose largest entry is at the same place")
    exact: bool = Field(description="equal to the last bit on every sample")
    finite: bool = Field(True, description="neither model's output holds NaN or infinity")


class ModelMeasurement(Value):
    """One model, measured."""

    size_bytes: int = Field(description="the file, external data included")
    zip_bytes: int = Field(description="the same file under deflate: what zeros and repeats are worth in storage")
    parameters: int
    nonzero_parameters: int
    sparsity: float
    density: float
    macs: int | None
    load_ms: float = Field(description="to open the model in onnxruntime")
    latency_ms: Latency | None = Field(description="null where no input could be made")
    throughput_per_s: float | None = Field(description="samples per second at the measured batch size")
    peak_memory_bytes: int | None = Field(description="resident memory gained by loading and running the model")
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
    speedup: Interval | None = Field(description="median of paired original / compressed latencies, with its spread")
    fidelity: dict[str, OutputFidelity] = Field(description="by output name")
    metric_changes: dict[str, MetricChange] = Field(default_factory=dict)
    data: Literal["evaluation", "calibration", "synthetic"] = Field(
        description="what the models ran on; synthetic inputs are drawn from the declared shapes"
    )
    samples: int
    batch_size: int
    threads: int
    device: str = Field(description="processor or GPU, and onnxruntime's version")
    verdict: str = Field(description="one sentence that does not flatter")
    notes: tuple[str, ...] = ()
