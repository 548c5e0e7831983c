"""How the OpenAPI document describes what FastAPI cannot see: errors, uploads, downloads, headers."""

from typing import Any

from api.schemas import ProblemDetails

Responses = dict[int | str, dict[str, Any]]

_WORDS = {
    400: "The request is malformed.",
    401: "An API key is needed, or this one is not known.",
    403: "The key lacks a scope, a quota is used up, or a page of another origin called.",
    404: "There is no such thing in this project.",
    409: "The state rules it out.",
    413: "Too large.",
    415: "This media type is not taken.",
    416: "The range lies outside the content; `Content-Range` has its size.",
    422: "Something in the request is not right; `errors` lists each finding.",
    503: "The database or the object store does not answer; try again after `Retry-After`.",
}
_BYTES = {"schema": {"type": "string", "format": "binary"}}


def problems(*statuses: int) -> Responses:
    """The errors of an operation that needs a key; those that every such operation has are added."""
    return open_problems(401, 403, *statuses)


def open_problems(*statuses: int) -> Responses:
    return {
        status: {"description": _WORDS[status], "model": ProblemDetails}
        for status in sorted({422, 503, *statuses})
    }


def header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def uploaded(model: type, what: str) -> Responses:
    location = {"Location": header(f"path of the {what}")}
    retry = {"Retry-After": header("seconds to wait before looking again")}
    return {
        200: {
            "model": model,
            "description": f"These bytes were here already: the same {what}.",
            "headers": location,
        },
        201: {"model": model, "description": f"The {what}, with what was found inside.", "headers": location},
        202: {
            "model": model,
            "description": "Stored; its inspection goes on. Look again at `Location`.",
            "headers": location | retry,
        },
        **problems(400, 413, 415),
    }


def upload_body(what: str) -> dict[str, Any]:
    """The request body of an upload, so that Swagger UI shows a form with a file picker."""
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "binary", "description": what, "minLength": 1},
            "name": {"type": "string", "maxLength": 200, "description": "what to call it", "example": ""},
        },
    }
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, "application/octet-stream": _BYTES},
        }
    }


def downloaded(media_type: str = "application/octet-stream") -> Responses:
    content = {media_type: _BYTES}
    etag = {"ETag": header('`"sha256-..."`, the hash of the whole content')}
    return {
        200: {"description": "The bytes.", "content": content, "headers": etag},
        206: {
            "description": "The asked range of them.",
            "content": content,
            "headers": etag | {"Content-Range": header("which bytes of how many")},
        },
        304: {"description": "The caller has them already."},
        307: {"description": "They are at `Location`, a URL that is good for 15 minutes."},
        **problems(404, 409, 416),
    }
