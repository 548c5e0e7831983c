"""/v1/methods: the catalogue of what a step can be. It is documentation, so it asks for no key."""

import inspect
from typing import Annotated

from fastapi import Path

from api.documented import open_problems
from api.errors import NoSuchRoute
from api.routing import router
from api.schemas import MethodBody, Methods
from compression.method import Method
from compression.registry import METHODS

routes = router("methods")


@routes.get("/v1/methods", responses=open_problems())
def list_methods() -> Methods:
    """Every compression method with its parameters, needs and an example."""
    return Methods(items=tuple(_body(name, kind) for name, kind in METHODS.items()), next_cursor=None)


@routes.get("/v1/methods/{name}", responses=open_problems(404))
def get_method(
    name: Annotated[str, Path(pattern="^[a-z0-9_]{1,60}$", description="as in a step's `method`")],
) -> MethodBody:
    """One compression method."""
    if name not in METHODS:
        raise NoSuchRoute(f"There is no method {name}; there are {', '.join(METHODS)}")
    return _body(name, METHODS[name])


def _body(name: str, kind: type[Method]) -> MethodBody:
    return MethodBody(
        name=name,
        title=kind.title,
        description=inspect.getdoc(kind) or "",
        source=kind.source,
        version=kind.version,
        needs=tuple(sorted(kind.needs)),
        needs_labels=kind.needs_labels,
        uses=tuple(sorted(kind.uses)),
        changes=kind.changes,
        op_types=None if kind.op_types is None else tuple(sorted(kind.op_types)),
        parameters=kind.model_json_schema(),
        example=dict(kind.example),
    )
