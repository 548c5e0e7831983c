"""The OpenAPI document: generated from the routes, completed with what FastAPI cannot know, checked for drift.

`python -m api.openapi --write` writes openapi/openapi.json and openapi/examples/; `--check` says whether they
are what the code says.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.documented import open_problems
from api.examples import example_files
from api.schemas import ProblemDetails
from compression.registry import METHODS
from db.settings import Settings

DOCUMENT = Path(__file__).parent.parent / "openapi" / "openapi.json"
PROBLEM_JSON = "application/problem+json"
_PROBLEM = {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}

FACTS: dict[str, Any] = {
    "title": "Modelpress",
    "version": version("modelpress"),
    "summary": "Makes neural networks smaller, as asynchronous jobs.",
    "description": """
Upload an ONNX model and, where a step asks for it, data. Post a job: a list of compression steps. Wait for it, then
download the smaller model and compare it with the original and with other jobs.

Every error is an RFC 9457 problem with a stable `code`, and `errors` lists each finding by itself. Every answer has
an `X-Request-Id`. Lists take `limit` and `cursor`. Sizes are bytes, times are UTC. Unknown query parameters are
refused.
""",
    "license_info": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "openapi_tags": [
        {"name": "models", "description": "What is to be compressed."},
        {"name": "datasets", "description": "What steps calibrate on, learn from and are judged by."},
        {"name": "methods", "description": "What a step can be."},
        {"name": "jobs", "description": "Steps run on a model, in a worker."},
        {"name": "artifacts", "description": "The files that jobs made."},
        {"name": "comparisons", "description": "Jobs and their originals side by side."},
        {"name": "service", "description": "For whoever runs the service."},
    ],
}


def install(app: FastAPI, *, auth: bool) -> None:
    """Makes `app.openapi()` give the completed document, generated at its first use.

    A service that asks for no keys says so: its operations name no security.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            facts = FACTS | {"tags": FACTS["openapi_tags"]}
            facts.pop("openapi_tags")
            app.openapi_schema = complete(get_openapi(routes=app.routes, **facts))
            if not auth:
                _open(app.openapi_schema)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def complete(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    body = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(body.pop("$defs"), ProblemDetails=body)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for method in METHODS.values():
        _describe_method(schemas[method.__name__], method.title, dict(method.example))
    for operation in _operations(document):
        _describe_errors(operation)
        for parameter in operation.get("parameters", ()):
            _leave_out_null(parameter)
    return document


def _open(document: dict[str, Any]) -> None:
    document["components"].pop("securitySchemes", None)
    for operation in _operations(document):
        operation.pop("security", None)


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from (operation for name, operation in path.items() if name != "parameters")


def _describe_method(schema: dict[str, Any], title: str, example: dict[str, Any]) -> None:
    schema["title"] = title
    schema["examples"] = [example]
    schema.setdefault("required", [])
    if "method" not in schema["required"]:
        schema["required"] = ["method", *schema["required"]]


def _describe_errors(operation: dict[str, Any]) -> None:
    """Every error body is a problem; and every call refuses query parameters that it does not know."""
    responses = operation["responses"]
    for status in (422, 503):
        responses.setdefault(str(status), {"description": open_problems()[status]["description"]})
    for status, response in responses.items():
        if status.isdigit() and int(status) >= 400:
            response["content"] = {PROBLEM_JSON: _PROBLEM}
        if status in {"204", "304", "307"}:
            response.pop("content", None)


def _leave_out_null(parameter: dict[str, Any]) -> None:
    """A parameter is given or left out; neither an address nor a header can hold null."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        schema.update(kinds[0])
    elif kinds:
        schema["anyOf"] = kinds


def render() -> dict[Path, str]:
    """What each generated file has to hold."""
    from api.app import create_app

    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data=Path(folder), database_url="", storage_url="", auth=True))
        document = json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"
        app.state.services.close()
    return {DOCUMENT: document, **example_files()}


def write_document() -> int:
    for path, text in render().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def check_document() -> int:
    stale = [
        path.name
        for path, text in render().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if stale:
        print(
            f"{', '.join(stale)}: not what the code says; run `make openapi` and commit it", file=sys.stderr
        )
    return 1 if stale else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m api.openapi", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write the files")
    mode.add_argument("--check", action="store_true", help="exit with 1 if they are not current")
    return write_document() if parser.parse_args().write else check_document()


if __name__ == "__main__":
    sys.exit(main())
