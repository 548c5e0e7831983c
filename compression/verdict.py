"""The verdict: measurements in one sentence that does not flatter, by pure rules.

The sentence says, in this order: what is broken, size, speed, and quality. Quality is the task metric where
there is one, and the fidelity of the outputs otherwise.
"""

from collections.abc import Iterator
from typing import Literal

from compression.measurements import Interval, Measurements, MetricChange, OutputFidelity

METRIC_ORDER = ("accuracy", "f1", "top5", "precision", "recall", "mse", "mae")
"""The first of these that was measured stands for the quality of a model."""

ERROR_METRICS = frozenset({"mse", "mae"})
"""Metrics where less is better; the others are shares, where more is better."""

SPEED_MARGIN = 0.03
"""Copies of one model differ by so much through memory layout alone: less is no difference."""

FAITHFUL_DB = 20.0
DIFFERENT_DB = 10.0
ZEROS_MARGIN = 0.05
"""A model is called zeros-only when it gained this share of zeros and its file shrank by less than this."""

SpeedWord = Literal["faster", "slower", "within noise", "not measured"]


def verdict(measurements: Measurements) -> str:
    """One sentence such as '3.9x smaller, 4% slower, accuracy -0.3 points (not significant)'."""
    numbers = (_size(measurements), _speed(measurements.speedup))
    facts = ", ".join((*numbers, *_quality(measurements), *_not_compared(measurements)))
    broken = [name for name, output in measurements.fidelity.items() if output.newly_nonfinite]
    if broken:
        return f"do not use: {_named(broken)} NaN or infinity where the original gives numbers; {facts}"
    return facts


def speed_word(speedup: Interval | None) -> SpeedWord:
    """Faster or slower only when the interval excludes 1 and the median lies beyond the margin."""
    if speedup is None:
        return "not measured"
    if speedup.low > 1 and speedup.value > 1 + SPEED_MARGIN:
        return "faster"
    if speedup.high < 1 and speedup.value < 1 - SPEED_MARGIN:
        return "slower"
    return "within noise"


def primary_metric(measurements: Measurements) -> str | None:
    """The metric that stands for the quality of the models, or None without labelled data."""
    return next((name for name in METRIC_ORDER if name in measurements.metric_changes), None)


def worst_sqnr(measurements: Measurements) -> tuple[str, float] | None:
    """The output that suffered most, and its SQNR in dB; None when no float output differs."""
    measured = {name: o.sqnr_db for name, o in measurements.fidelity.items() if o.sqnr_db is not None}
    return min(measured.items(), key=lambda item: item[1]) if measured else None


def _size(measurements: Measurements) -> str:
    ratio = measurements.size_ratio
    gained = measurements.compressed.sparsity - measurements.original.sparsity
    if gained >= ZEROS_MARGIN and ratio < 1 + ZEROS_MARGIN:
        return "zeros only: the file is not smaller until packed"
    if 0.995 <= ratio < 1.005:
        return f"not smaller: {ratio:.2f}x"
    if ratio < 1:
        return f"larger: {_times(1 / ratio)} the size" if ratio < 0.8 else f"{_percent(1 / ratio - 1)} larger"
    return f"{_times(ratio)} smaller" if ratio >= 1.2 else f"{_percent(1 - 1 / ratio)} smaller"


def _speed(speedup: Interval | None) -> str:
    word = speed_word(speedup)
    if speedup is None:
        return "speed not measured"
    if word == "within noise":
        return "same speed within noise"
    gain = speedup.value if word == "faster" else 1 / speedup.value
    return f"{_times(gain)} {word}" if gain >= 1.2 else f"{_percent(gain - 1)} {word}"


def _quality(measurements: Measurements) -> Iterator[str]:
    primary = primary_metric(measurements)
    if primary is None:
        yield _fidelity(measurements)
        return
    for name in METRIC_ORDER:
        change = measurements.metric_changes.get(name)
        if change is None:
            continue
        if name == primary or (change.significant and worse(name, change.change.value)):
            yield _metric(name, change, measurements.original.metrics[name].value)


def worse(metric: str, change: float) -> bool:
    """Whether a change of this sign makes the model worse."""
    return change > 0 if metric in ERROR_METRICS else change < 0


def _metric(name: str, change: MetricChange, before: float) -> str:
    value = change.change.value
    if value == 0:
        return f"{name} unchanged"
    significance = "" if change.significant else " (not significant)"
    if name not in ERROR_METRICS:
        return f"{name} {_signed(100 * value)} points{significance}"
    amount = f"{_signed(100 * value / before)}%" if before > 0 else f"{value:+.3g}"
    return f"{name} {amount}{significance}"


def _fidelity(measurements: Measurements) -> str:
    outputs = measurements.fidelity
    if not outputs:
        return "outputs could not be compared"
    where = " on synthetic inputs" if measurements.data == "synthetic" else ""
    if all(output.exact for output in outputs.values()):
        return f"outputs equal{where}"
    worst = worst_sqnr(measurements)
    if worst is None:
        return _integers(outputs) + where
    name, decibels = worst
    subject, s = (f"output {name!r}", "s") if len(outputs) > 1 else ("outputs", "")
    if decibels < DIFFERENT_DB:
        return f"{subject} differ{s} strongly ({decibels:.0f} dB{where}): check before use"
    if decibels < FAITHFUL_DB:
        return f"{subject} keep{s} only {decibels:.0f} dB{where}"
    return f"outputs keep {'at least ' if len(outputs) > 1 else ''}{decibels:.0f} dB{where}"


def _integers(outputs: dict[str, OutputFidelity]) -> str:
    share = min((o.agreement for o in outputs.values() if o.agreement is not None), default=None)
    if share is None:
        return "outputs differ"
    text = f"{100 * share:.1f}".replace("100.0", "99.9")
    return f"outputs equal in {text}% of entries" + ("" if share >= 0.9 else ": check before use")


def _not_compared(measurements: Measurements) -> Iterator[str]:
    if measurements.fidelity and measurements.incomparable:
        names = ", ".join(repr(name) for name in measurements.incomparable[:3])
        yield f"{names} not comparable"


def _named(names: list[str]) -> str:
    return f"output {names[0]!r} holds" if len(names) == 1 else f"{len(names)} outputs hold"


def _times(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.01 else "under 1%"


def _signed(value: float) -> str:
    """With one decimal, or as many as show that it is not zero."""
    return f"{value:+.1f}" if abs(value) >= 0.05 else f"{value:+.1g}"
