"""Figures as people read them: bytes, times, shares and differences in a few signs."""

from collections.abc import Callable
from math import floor, log10

MISSING = "–"
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_COUNTS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))


def figure(value: float | None, unit: str) -> str:
    """A value in the unit of a comparison's column: bytes, ms, x, share, dB, 1/s; empty for plain numbers."""
    return MISSING if value is None else _FORMATS.get(unit, _plain)(value)


def difference(value: float | None, before: float | None, unit: str) -> str:
    """Change from `before`: percent for amounts, points for shares, empty where there is nothing to say."""
    if value is None or before is None or value == before or unit in {"x", "dB"}:
        return ""
    if unit == "share":
        points = 100 * (value - before)
        return f"{_signed(points)} points" if abs(points) >= 0.005 else "under 0.01 points"
    if before == 0:
        return f"{value - before:+.3g}"
    percent = 100 * (value / before - 1)
    if abs(percent) < 0.05:
        return "under 0.1%"
    return f"{_minus(f'{percent:+.0f}')}%" if abs(percent) >= 1 else f"{_minus(f'{percent:+.1f}')}%"


def _signed(value: float) -> str:
    return _minus(f"{value:+.1f}" if abs(value) >= 0.05 else f"{value:+.1g}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _plain(value: float) -> str:
    if isinstance(value, int) or (abs(value) >= 1e4 and value == round(value)):
        return _scaled(value, _COUNTS, "")
    return _digits(value) if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.2e}"


def _scaled(value: float, units: tuple[tuple[float, str], ...], smallest: str) -> str:
    for size, name in units:
        if abs(value) >= 0.9995 * size:
            return f"{_digits(value / size)}{' ' if not name.startswith(' ') else ''}{name}"
    return f"{value:.0f}{smallest}"


def _digits(value: float) -> str:
    """Three significant digits without an exponent."""
    if value == 0:
        return "0"
    places = max(2 - floor(log10(abs(value) * 1.0005)), 0)
    return f"{value:.{min(places, 6)}f}"


def _time(value_ms: float) -> str:
    return f"{_digits(value_ms)} ms" if abs(value_ms) < 10_000 else f"{_digits(value_ms / 1000)} s"


def _rate(value: float) -> str:
    return f"{_digits(value)}/s" if value < 1e4 else f"{_scaled(value, _COUNTS, '')}/s"


_FORMATS: dict[str, Callable[[float], str]] = {
    "bytes": lambda value: _scaled(value, _BYTES, " B"),
    "ms": _time,
    "x": lambda value: f"{value:.0f}x" if value >= 9.95 else f"{value:.2f}x",
    "share": lambda value: f"{100 * value:.1f}%",
    "dB": lambda value: f"{value:.1f} dB",
    "1/s": _rate,
}
