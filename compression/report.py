"""Reports for people: one self-contained HTML file each, without scripts or external resources."""

from collections.abc import Mapping
from typing import Any

from compression.comparison import Comparison


def render_comparison_html(comparison: Comparison, *, title: str = "Comparison") -> str:
    """A table of all rows, a Pareto chart of size against quality and latency, and the warnings."""
    raise NotImplementedError


def render_report_html(document: Mapping[str, Any]) -> str:
    """One job's report.

    `document` is what report.json holds; only `measurements` (a `Measurements` or its JSON) must be there. Read where
    present: `name`, `job_id`, `model_name`, `created_at`, `seed`, `device`, `versions` (name to version), `notes`, and
    `steps`, each with `method`, `seconds`, `size_bytes`, `notes`, `parameters` and `layers` (`LayerOutcome`s as JSON).
    """
    raise NotImplementedError
