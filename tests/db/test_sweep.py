"""Bytes without a row go, bytes with one stay."""

from dataclasses import replace

import pytest
from sqlalchemy import delete

from db import assets
from db.errors import StorageUnavailable
from db.local_store import LocalStore
from db.models import Asset, AssetKind
from db.storage import ObjectStore
from db.sweep import sweep_orphans
from tests.db.conftest import House


def test_only_what_no_row_names_is_swept(house: House, store: ObjectStore) -> None:
    house = replace(house, store=store)
    house.add(b"named")
    house.keep(b"orphan")
    assert sweep_orphans(house.database, store, older_than_s=3600) == 0, "it may still get its row"
    assert house.has(b"orphan")
    assert sweep_orphans(house.database, store, older_than_s=-60) == 1
    assert not house.has(b"orphan")
    assert house.has(b"named")


def test_rows_that_nothing_refers_to_are_swept(house: House) -> None:
    asset = house.add(b"left")
    with house.database.transaction() as s:
        s.execute(delete(Asset).where(Asset.id == asset.id))
    sweep_orphans(house.database, house.store)
    assert not house.has(b"left")


def test_a_foreign_file_in_the_store_is_left_alone(house: House, files: LocalStore) -> None:
    path = files._root / "projects" / "notes.txt"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert sweep_orphans(house.database, files, older_than_s=-60) == 0
    assert path.exists()


def test_an_object_that_could_not_be_deleted_is_swept_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = house.ready(b"stuck")

    def refuse(self: LocalStore, key: str) -> None:
        raise StorageUnavailable("not now")

    with monkeypatch.context() as broken:
        broken.setattr(LocalStore, "delete", refuse)
        with house.database.transaction() as s:
            assets.delete_asset(s, house.store, house.project.id, AssetKind.MODEL, asset.id)
    assert house.has(b"stuck")
    assert sweep_orphans(house.database, house.store, older_than_s=-60) == 1
    assert not house.has(b"stuck")
