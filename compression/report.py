"""Pages for people: one self-contained HTML file each, without scripts or external resources.

Names in them are a stranger's: everything is escaped by the template engine, and nothing is ever marked as
safe here.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from compression.charts import scatter
from compression.comparison import Column, Comparison, Row
from compression.figures import MISSING, difference, figure
from compression.report_view import report_view


def render_comparison_html(comparison: Comparison, *, title: str = "Comparison of compressed models") -> str:
    """A table of all rows, Pareto charts of size and latency against quality, and the warnings."""
    charts = [scatter(comparison, key) for key in ("size_bytes", "latency_p50_ms")]
    return (
        _environment()
        .get_template("comparison.html.j2")
        .render(
            title=title,
            comparison=comparison,
            charts=[chart for chart in charts if chart is not None],
            main=_main_columns(comparison),
            quality=next(column for column in comparison.columns if column.key == comparison.quality),
            jobs=sum(row.kind == "job" for row in comparison.rows),
            originals=sum(row.kind == "original" for row in comparison.rows),
        )
    )


def render_report_html(document: Mapping[str, Any]) -> str:
    """One job's report.

    `document` is what report.json holds; only `measurements` (a `Measurements` or its JSON) must be there.
    Read where present: `name`, `job_id`, `model_name`, `created_at`, `seed`, `device`, `versions` (name to
    version), `notes`, and `steps`, each with `method`, `seconds`, `size_bytes`, `notes`, `parameters` and
    `layers` (`LayerOutcome`s as JSON).
    """
    return _environment().get_template("report.html.j2").render(**report_view(document))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("compression"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["beside"] = _beside
    return environment


def _main_columns(comparison: Comparison) -> list[Column]:
    """The main columns that hold any value; ratio and speedup stand beside the size and the latency."""
    beside = {"size_ratio", "speedup"}
    return [
        column
        for column in comparison.columns
        if column.main
        and column.key not in beside
        and any(row.text[column.key] != MISSING for row in comparison.rows)
    ]


def _beside(row: Row, column: Column) -> str:
    """The small line under a value: how it compares with the original's."""
    if row.kind == "original":
        return ""
    ratio, speedup = row.values["size_ratio"], row.values["speedup"]
    if column.key == "size_bytes" and ratio is not None:
        return f"{figure(ratio, 'x')} smaller" if ratio >= 1.005 else f"{ratio:.2f}x: not smaller"
    if column.key == "latency_p50_ms" and speedup is not None:
        return f"{figure(speedup, 'x')}, {row.speed}"
    value, delta = row.values[column.key], row.deltas[column.key]
    if value is None or delta is None:
        return ""
    return difference(value, value - delta, column.unit)
