"""What a request may use: the settings, the database, the object store and the bell, opened once per process."""

import threading
from dataclasses import dataclass, field
from typing import Annotated, Self, cast

from fastapi import Depends, Request

from api.metrics import Metrics
from db.projects import ensure_project
from db.queue import Bell
from db.session import Database
from db.settings import Settings
from db.storage import ObjectStore, open_store


@dataclass(kw_only=True)
class Services:
    """Shared by all threads. Nothing connects before the first request that needs it."""

    settings: Settings
    database: Database
    store: ObjectStore
    bell: Bell
    metrics: Metrics
    _default_project: str | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        database = Database(settings)
        return cls(
            settings=settings,
            database=database,
            store=open_store(settings),
            bell=Bell(settings, database),
            metrics=Metrics(database),
        )

    def close(self) -> None:
        self.bell.close()
        self.store.close()
        self.database.close()

    @property
    def auth(self) -> bool:
        """Whether callers need a key. Only who knows where the service listens may switch it off."""
        return self.settings.auth is not False

    def default_project_id(self) -> str:
        """The project of callers without a key, made at the first call."""
        with self._lock:
            if self._default_project is None:
                with self.database.transaction() as s:
                    project = ensure_project(s, self.settings.default_project, self.settings)
                    self._default_project = project.id
            return self._default_project


def services_of(request: Request) -> Services:
    return cast("Services", request.app.state.services)


ServicesHere = Annotated[Services, Depends(services_of)]
