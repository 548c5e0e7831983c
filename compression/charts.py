"""Where the marks of a chart go: pure geometry that the templates draw as SVG."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log10

from compression.comparison import Column, Comparison, Row
from compression.figures import figure

WIDTH, HEIGHT = 520, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 30, 18, 50
LOG_RANGE = 8
"""Ranges that span more than this factor get a logarithmic axis."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    x: float
    y: float
    text_x: float
    text_y: float
    number: int
    title: str
    row: Row


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Pixel positions in a box of `width` x `height`."""

    title: str
    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    exact_y: float | None
    """Height of the line on which rows with equal outputs lie, above all decibels."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def scatter(comparison: Comparison, x_key: str) -> Scatter | None:
    """Rows by one cost (size or latency) and their quality; None where fewer than two can be placed."""
    columns = {column.key: column for column in comparison.columns}
    quality = columns[comparison.quality]
    quality_title = quality.title.split(",")[0]
    placed = [
        (number, row, x, y)
        for number, row in enumerate(comparison.rows, start=1)
        if (x := row.values[x_key]) is not None and (y := _quality(row, quality.key)) is not None
    ]
    if len(placed) < 2:
        return None
    x_axis = _Axis.over([x for _, _, x, _ in placed], columns[x_key].unit, LEFT, WIDTH - RIGHT)
    bottom, top = HEIGHT - BOTTOM, TOP
    finite = [y for _, _, _, y in placed if y != inf]
    exact = len(finite) < len(placed)
    y_axis = _Axis.over(finite or [0.0], quality.unit, bottom, top + (34 if exact else 0), log=False)
    spots = [(x_axis.at(x), top + 8 if y == inf else y_axis.at(y)) for _, _, x, y in placed]
    labels = _label_places(spots)
    return Scatter(
        title=f"{quality_title} against {columns[x_key].title.lower()}",
        x_title=columns[x_key].title,
        y_title=quality_title,
        x_ticks=x_axis.ticks,
        y_ticks=y_axis.ticks if finite else (),
        marks=_originals_last(
            Mark(
                x=spot[0],
                y=spot[1],
                text_x=label[0],
                text_y=label[1],
                number=number,
                title=f"{row.name}: {figure(x, columns[x_key].unit)}, {_quality_text(y, quality)}",
                row=row,
            )
            for (number, row, x, y), spot, label in zip(placed, spots, labels, strict=True)
        ),
        exact_y=top + 8 if exact else None,
    )


def _originals_last(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """So that they are drawn on top: where a job lies on its original, both stay visible."""
    return tuple(sorted(marks, key=lambda mark: mark.row.kind == "original"))


def _quality(row: Row, key: str) -> float | None:
    return inf if key == "sqnr_db" and row.exact else row.values[key]


def _quality_text(value: float, quality: Column) -> str:
    return "equal outputs" if value == inf else figure(value, quality.unit)


def _label_places(spots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A place beside each mark for its number: the first of eight that is free of marks and other numbers."""
    taken: list[tuple[float, float]] = list(spots)
    found = []
    for x, y in spots:
        offers = [(x + dx, y + dy) for dx, dy in _AROUND]
        inside = [
            place for place in offers if LEFT < place[0] < WIDTH - 6 and 6 < place[1] < HEIGHT - BOTTOM - 4
        ]
        others = [spot for spot in taken if spot != (x, y)]
        best = max(
            inside or offers, key=lambda place: min([_distance(place, other) for other in others] + [15.0])
        )
        taken.append(best)
        found.append(best)
    return found


_AROUND = ((13, -11), (-13, -11), (13, 13), (-13, 13), (0, -16), (0, 18), (17, 0), (-17, 0))


def _distance(one: tuple[float, float], other: tuple[float, float]) -> float:
    return float(((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2) ** 0.5)


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Maps low..high to pixels start..stop."""

    low: float
    high: float
    start: float
    stop: float
    log: bool
    ticks: tuple[Tick, ...] = ()

    @classmethod
    def over(
        cls, values: Sequence[float], unit: str, start: float, stop: float, *, log: bool | None = None
    ) -> "_Axis":
        low, high = min(values), max(values)
        if log is None:
            log = low > 0 and high / low > LOG_RANGE
        steps = _log_steps(low, high) if log else _nice_steps(low, high, percent=unit == "share")
        bare = cls(low=steps[0], high=steps[-1], start=start, stop=stop, log=log)
        ticks = tuple(Tick(at=bare.at(step), text=_tick_text(step, unit)) for step in steps)
        return cls(low=bare.low, high=bare.high, start=start, stop=stop, log=log, ticks=ticks)

    def at(self, value: float) -> float:
        low, high, value = (
            (log10(v) for v in (self.low, self.high, value))
            if self.log
            else (
                self.low,
                self.high,
                value,
            )
        )
        return round(self.start + (value - low) / (high - low) * (self.stop - self.start), 1)


def _nice_steps(low: float, high: float, *, percent: bool) -> list[float]:
    """Four to seven round numbers that enclose the range, which is widened where it is a point."""
    if high - low < 1e-9 * max(abs(high), 1e-9):
        margin = 0.02 if percent else max(abs(high) * 0.5, 1e-3)
        low, high = low - margin, high + margin
    raw = (high - low) / 4
    scale = 10 ** floor(log10(raw))
    step = next(m * scale for m in (1, 2, 2.5, 5, 10) if m * scale >= raw)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_steps(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade, or decades alone over a wide range."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    mantissas: Iterable[int] = (1, 2, 5) if high / low < 300 else (1,)
    steps = [m * 10.0**d for d in decades for m in mantissas]
    below = [s for s in steps if s <= low]
    above = [s for s in steps if s >= high]
    return [s for s in steps if below[-1] <= s <= above[0]]


def _tick_text(value: float, unit: str) -> str:
    if unit == "share":
        return f"{100 * value:.4g}%"
    if unit == "bytes":
        for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(value) >= size:
                return f"{value / size:.4g} {name}"
        return f"{value:.4g} B"
    return f"{value:.4g} {unit}".strip()
