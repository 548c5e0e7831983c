"""Who is calling, in which project, and what they may do there."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from api.errors import ScopeMissing, Unauthenticated
from api.services import Services, ServicesHere
from db.clock import utcnow
from db.keys import Scope, find_key, touch_key
from db.models import ApiKey

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    bearerFormat="mpk_...",
    description="An API key of a project: `python -m api keys create --project NAME`. "
    "Not needed where the service listens on loopback only.",
)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """`key_id` is None where the service asks for no keys."""

    project_id: str
    key_id: str | None


def allowed(scope: Scope) -> Callable[..., Caller]:
    """A dependency that gives the caller, if their key has this scope."""

    def authenticate(
        request: Request,
        services: ServicesHere,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    ) -> Caller:
        if not services.auth:
            return Caller(project_id=services.default_project_id(), key_id=None)
        if credentials is None:
            raise Unauthenticated("Send an API key: Authorization: Bearer mpk_...")
        key = _find(services, credentials.credentials)
        if scope not in key.scopes:
            raise ScopeMissing(f"This key lacks the scope {scope}; it has {', '.join(key.scopes) or 'none'}")
        return Caller(project_id=key.project_id, key_id=key.id)

    return authenticate


def _find(services: Services, secret: str) -> ApiKey:
    with services.database.read() as s:
        key = find_key(s, secret)
    if key is None:
        raise Unauthenticated("This key is not known, or was revoked", challenge='error="invalid_token"')
    if key.last_used_at is None or key.last_used_at < utcnow() - timedelta(minutes=1):
        with services.database.transaction() as s:
            touch_key(s, key.id)
    return key


ModelReader = Annotated[Caller, Depends(allowed(Scope.MODELS_READ))]
ModelWriter = Annotated[Caller, Depends(allowed(Scope.MODELS_WRITE))]
DatasetReader = Annotated[Caller, Depends(allowed(Scope.DATASETS_READ))]
DatasetWriter = Annotated[Caller, Depends(allowed(Scope.DATASETS_WRITE))]
JobReader = Annotated[Caller, Depends(allowed(Scope.JOBS_READ))]
JobWriter = Annotated[Caller, Depends(allowed(Scope.JOBS_WRITE))]
