"""docs/methods.md, generated from the method classes so that it cannot drift from them."""

import json
import sys
from pathlib import Path
from typing import Any

from compression.method import Method
from compression.registry import METHODS

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
HEAD = """# Methods

Every step a job can take. Generated from `compression/methods/` by `make docs`; the same facts are served by
`GET /v1/methods`. Every method also takes `layers`, which picks the layers it touches:
`{"include": ["encoder.*", "op:Conv"], "exclude": ["encoder.head"]}`.
"""


def write_page() -> int:
    PAGE.write_text(render(), encoding="utf-8")
    return 0


def check_page() -> int:
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == render():
        return 0
    print(
        "docs/methods.md is not what the method classes say; run `make docs` and commit it", file=sys.stderr
    )
    return 1


def render() -> str:
    return "\n".join([HEAD, *(_section(name, method) for name, method in METHODS.items())])


def _section(name: str, method: type[Method]) -> str:
    schema = method.model_json_schema()
    rows = [
        f"| `{field}` | {_kind(facts)} | {_default(facts)} | {_escaped(facts.get('description', ''))} |"
        for field, facts in schema["properties"].items()
        if field not in {"method", "layers"}
    ]
    needs = ", ".join(sorted(method.needs)) or "nothing"
    parts = [
        f"## `{name}`",
        "",
        f"{method.title}",
        "",
        f"Needs data: {needs}. Changes: {', '.join(method.changes) or 'nothing, the model passes through'}.",
    ]
    if method.source:
        parts += ["", f"Source: {method.source}"]
    if rows:
        parts += ["", "| field | values | default | |", "|---|---|---|---|", *rows]
    return "\n".join([*parts, "", "```json", json.dumps(dict(method.example)), "```", ""])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _kind(facts: dict[str, Any]) -> str:
    options = [facts, *facts.get("anyOf", [])]
    words = [
        _words(option) for option in options if "type" in option or "enum" in option or "const" in option
    ]
    return " or ".join(word for word in words if word) or "object"


def _words(option: dict[str, Any]) -> str:
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    if "const" in option:
        return f"`{option['const']}`"
    low = [f"> {option['exclusiveMinimum']}"] if "exclusiveMinimum" in option else []
    low += [f">= {option['minimum']}"] if "minimum" in option else []
    high = [f"< {option['exclusiveMaximum']}"] if "exclusiveMaximum" in option else []
    high += [f"<= {option['maximum']}"] if "maximum" in option else []
    return " ".join([str(option["type"]), *low, *high])


def _default(facts: dict[str, Any]) -> str:
    return f"`{json.dumps(facts['default'])}`" if "default" in facts else "required"
