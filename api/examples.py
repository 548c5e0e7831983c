"""Job requests for the documentation: valid as they stand but for their ids. openapi/examples/ holds the same."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "openapi" / "examples"

_MODEL = "mdl_01k00000000000000000000000"
_DATA = {
    "calibration": "dst_01k00000000000000000000001",
    "evaluation": "dst_01k00000000000000000000002",
}
_EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "weight_only_int8": (
        "Int8 weights: a quarter of the size, no data needed",
        {"model_id": _MODEL, "steps": [{"method": "quantize_weights"}]},
    ),
    "static_int8": (
        "Int8 throughout: smaller, and faster where the processor gains from it",
        {
            "model_id": _MODEL,
            "name": "static int8",
            "data": _DATA,
            "steps": [{"method": "quantize_static", "ranges": "minmax"}],
            "evaluation": {"metrics": ["accuracy", "f1"], "latency": {"batch_size": 1, "threads": 1}},
        },
    ),
    "prune_then_quantize": (
        "Drop the smallest 60% of the weights, then quantize",
        {
            "model_id": _MODEL,
            "name": "pruned 60%, static int8",
            "data": _DATA,
            "steps": [
                {"method": "prune_magnitude", "sparsity": 0.6},
                {"method": "quantize_static", "ranges": "minmax"},
            ],
            "labels": {"team": "vision"},
            "seed": 0,
        },
    ),
    "chosen_layers": (
        "Int8 weights in every layer but the convolutions",
        {
            "model_id": _MODEL,
            "steps": [{"method": "quantize_weights", "layers": {"include": ["*"], "exclude": ["op:Conv"]}}],
            "device": "cpu",
            "time_limit_s": 600,
        },
    ),
}
JOB_EXAMPLES: dict[str, Any] = {
    name: {"summary": summary, "value": value} for name, (summary, value) in _EXAMPLES.items()
}


def example_files() -> dict[Path, str]:
    """What each file of openapi/examples/ has to hold."""
    return {
        FOLDER / f"{name}.json": json.dumps(value, indent=2) + "\n" for name, (_, value) in _EXAMPLES.items()
    }
