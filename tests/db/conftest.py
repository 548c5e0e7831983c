"""A project with rows to work on, in a few words."""

import hashlib
from dataclasses import dataclass
from typing import Any

import pytest

from db import assets, jobs
from db.blobs import object_key
from db.local_store import LocalStore
from db.models import Asset, AssetKind, Job, Project
from db.session import Database
from db.settings import Settings
from db.storage import ObjectStore


@dataclass(frozen=True)
class House:
    database: Database
    store: ObjectStore
    project: Project
    settings: Settings

    def keep(self, content: bytes, project: Project | None = None) -> str:
        """Stores bytes without a row; returns their hash."""
        with self.store.begin() as incoming:
            incoming.write(content)
            incoming.commit(object_key((project or self.project).id, incoming.sha256))
            return incoming.sha256

    def add(self, content: bytes, kind: AssetKind = AssetKind.MODEL, project: Project | None = None) -> Asset:
        sha256 = self.keep(content, project)
        with self.database.transaction() as s:
            asset, _ = assets.add_asset(
                s,
                self.store,
                project_id=(project or self.project).id,
                kind=kind,
                name="name",
                filename="file.bin",
                sha256=sha256,
                size_bytes=len(content),
            )
        return asset

    def ready(self, content: bytes = b"model", kind: AssetKind = AssetKind.MODEL) -> Asset:
        asset = self.add(content, kind)
        with self.database.transaction() as s:
            if claimed := assets.claim_inspection(s, asset.id, lease_s=30):
                assert assets.finish_inspection(s, asset.id, claimed.attempt, {"layers": []})
        return asset

    def submit(
        self, model: Asset | None = None, *, methods: tuple[str, ...] = ("a", "b"), **fields: Any
    ) -> Job:
        model = model or self.ready()
        spec = {"steps": [{"method": method} for method in methods]}
        given = {"name": "job", "labels": {}, "data": {}, "queue": "cpu", "time_limit_s": 3600.0, **fields}
        with self.database.transaction() as s:
            return jobs.submit(
                s, project_id=self.project.id, model_id=model.id, spec=spec, preflight={"ok": True}, **given
            )

    def claim(self, job: Job, **options: Any) -> Job:
        claimed = self.try_claim(job, **options)
        assert isinstance(claimed, Job)
        return claimed

    def try_claim(self, job: Job, **options: Any) -> Job | jobs.NotClaimed:
        given = {"worker": "w1", "lease_s": 30, "max_attempts": 3, **options}
        with self.database.transaction() as s:
            return jobs.claim(s, job.id, **given)

    def row(self, job: Job) -> Job:
        with self.database.read() as s:
            return jobs.get_job(s, self.project.id, job.id)

    def has(self, content: bytes) -> bool:
        return self.store.exists(object_key(self.project.id, hashlib.sha256(content).hexdigest()))


@pytest.fixture
def house(database: Database, files: LocalStore, project: Project, settings: Settings) -> House:
    return House(database, files, project, settings)
