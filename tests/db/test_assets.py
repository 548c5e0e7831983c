"""Models and datasets: kept once, counted, inspected under a lease, deleted only when nobody needs them."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from db import artifacts, assets, jobs, projects
from db.blobs import object_key
from db.clock import utcnow
from db.errors import AssetInUse, NotFound, ObjectMissing, QuotaExceeded
from db.models import AssetKind, AssetState, Project
from db.sweep import sweep_orphans
from tests.db.conftest import House

MODEL, DATASET = AssetKind.MODEL, AssetKind.DATASET


def used(house: House) -> int:
    with house.database.read() as s:
        return projects.stored_bytes(s, house.project.id)


def delete(house: House, asset_id: str, kind: AssetKind = MODEL) -> None:
    with house.database.transaction() as s:
        assets.delete_asset(s, house.store, house.project.id, kind, asset_id)


def test_the_same_bytes_are_one_asset_and_count_once(house: House) -> None:
    first, again = house.add(b"12345"), house.add(b"12345")
    data = house.add(b"12345", DATASET)
    assert again.id == first.id
    assert first.id.startswith("mdl_")
    assert data.id.startswith("dst_")
    assert used(house) == 5


def test_another_project_sees_neither_rows_nor_bytes(house: House) -> None:
    with house.database.transaction() as s:
        other = projects.ensure_project(s, "other", house.settings)
    mine, theirs = house.add(b"same"), house.add(b"same", project=other)
    assert mine.id != theirs.id
    with house.database.read() as s:
        with pytest.raises(NotFound):
            assets.get_asset(s, other.id, MODEL, mine.id)
        with pytest.raises(NotFound):
            assets.get_asset(s, house.project.id, DATASET, mine.id)
        assert [asset.id for asset in assets.list_assets(s, other.id, MODEL)[0]] == [theirs.id]


def test_a_row_never_names_bytes_that_are_not_there(house: House) -> None:
    with pytest.raises(ObjectMissing), house.database.transaction() as s:
        assets.add_asset(
            s,
            house.store,
            project_id=house.project.id,
            kind=MODEL,
            name="x",
            filename="x",
            sha256="0" * 64,
            size_bytes=1,
        )
    assert used(house) == 0


def test_bytes_beyond_the_quota_are_refused_with_the_numbers(house: House) -> None:
    with house.database.transaction() as s:
        s.execute(update(Project).values(max_stored_bytes=10))
    house.add(b"1234567")
    house.add(b"1234567", DATASET)
    with pytest.raises(QuotaExceeded) as refused:
        house.add(b"abcd")
    assert (refused.value.limit, refused.value.used, refused.value.wanted) == (10, 7, 4)
    house.add(b"abc")


def test_pages_are_the_newest_first_without_gaps(house: House) -> None:
    ids = [house.add(bytes([number])).id for number in range(5)]
    seen: list[str] = []
    cursor = None
    with house.database.read() as s:
        for size in (2, 2, 1):
            page, cursor = assets.list_assets(s, house.project.id, MODEL, limit=2, cursor=cursor)
            assert len(page) == size
            seen += [asset.id for asset in page]
    assert cursor is None
    assert seen == ids[::-1]


def test_deleting_removes_bytes_that_nothing_else_uses(house: House) -> None:
    model, data = house.ready(b"shared"), house.ready(b"shared", DATASET)
    delete(house, model.id)
    assert house.has(b"shared")
    with house.database.read() as s, pytest.raises(NotFound):
        assets.get_asset(s, house.project.id, MODEL, model.id)
    delete(house, data.id, DATASET)
    assert not house.has(b"shared")
    assert used(house) == 0
    with pytest.raises(NotFound):
        delete(house, data.id, DATASET)


def test_deleted_bytes_can_come_again(house: House) -> None:
    first = house.ready(b"x")
    delete(house, first.id)
    assert house.ready(b"x").id != first.id
    assert house.has(b"x")


def test_a_deletion_that_rolls_back_deletes_nothing(house: House) -> None:
    model = house.ready()
    with pytest.raises(ZeroDivisionError), house.database.transaction() as s:
        assets.delete_asset(s, house.store, house.project.id, MODEL, model.id)
        raise ZeroDivisionError
    assert house.has(b"model")
    assert used(house) == 5


def test_what_a_live_job_uses_cannot_be_deleted_and_what_a_finished_one_used_can(house: House) -> None:
    model, data, teacher = house.ready(b"model"), house.ready(b"data", DATASET), house.ready(b"teacher")
    job = house.submit(model, data={"calibration": data.id}, models=[teacher.id])
    for asset, kind in ((model, MODEL), (data, DATASET), (teacher, MODEL)):
        with pytest.raises(AssetInUse, match=job.id):
            delete(house, asset.id, kind)
    claimed = house.claim(job)
    output = artifacts.NewArtifact(
        name="model.onnx", media_type="application/octet-stream", sha256=house.keep(b"small"), size_bytes=5
    )
    same = artifacts.NewArtifact(
        name="copy", media_type="text/plain", sha256=house.keep(b"model"), size_bytes=5
    )
    with house.database.transaction() as s:
        token = claimed.token or ""
        assert jobs.succeed(s, house.store, job.id, token, measurements={}, artifacts=[output, same])
    delete(house, model.id)
    delete(house, data.id, DATASET)
    delete(house, teacher.id)
    assert house.has(b"model"), "an artifact has the same bytes"
    assert not house.has(b"data")
    done = house.row(job)
    assert [artifact.name for artifact in done.artifacts] == ["model.onnx", "copy"]
    assert used(house) == 10
    with house.database.read() as s:
        assert assets.find_assets(s, [model.id])[model.id].deleted_at is not None


def test_one_worker_inspects_until_its_lease_is_over(house: House) -> None:
    asset, now = house.add(b"x"), utcnow()
    with house.database.transaction() as s:
        first = assets.claim_inspection(s, asset.id, 30, now)
        assert first is not None
        assert assets.claim_inspection(s, asset.id, 30, now + timedelta(seconds=29)) is None
        second = assets.claim_inspection(s, asset.id, 30, now + timedelta(seconds=31))
        assert second is not None
        assert second.attempt == 2
        assert not assets.finish_inspection(s, asset.id, 1, {"stale": True})
        assert not assets.refuse_asset(s, house.store, asset.id, 1, {"code": "stale"})
        assert assets.finish_inspection(s, asset.id, 2, {"fresh": True})
        assert assets.claim_inspection(s, asset.id, 30, now + timedelta(days=1)) is None
    with house.database.read() as s:
        found = assets.get_asset(s, house.project.id, MODEL, asset.id)
    assert (found.state, found.summary, found.error) == (AssetState.READY, {"fresh": True}, None)


def test_a_file_that_ends_its_inspectors_is_refused_in_the_end(house: House) -> None:
    asset, now = house.add(b"deadly"), utcnow()
    claims = []
    for attempt in range(4):
        with house.database.transaction() as s:
            claims.append(assets.claim_inspection(s, asset.id, 30, now + attempt * timedelta(seconds=31)))
    assert [claim is not None for claim in claims] == [True, True, True, False]
    with house.database.read() as s:
        found = assets.get_asset(s, house.project.id, MODEL, asset.id)
    assert found.state is AssetState.REFUSED
    assert found.error is not None
    assert found.error["code"] == "poison"


def test_a_refused_file_keeps_its_reason_but_not_its_bytes(house: House) -> None:
    asset = house.add(b"bad")
    with house.database.transaction() as s:
        assert assets.claim_inspection(s, asset.id, 30)
        assert assets.refuse_asset(s, house.store, asset.id, 1, {"code": "invalid_model"})
    assert not house.has(b"bad")
    assert used(house) == 0
    with house.database.read() as s:
        assert assets.get_asset(s, house.project.id, MODEL, asset.id).error == {"code": "invalid_model"}
    assert house.add(b"bad").id != asset.id


def test_inspections_nobody_holds_are_rung_for_again(house: House) -> None:
    asset, now = house.add(b"x"), utcnow()

    def lost(seconds: float, **more: float) -> list[str]:
        with house.database.read() as s:
            return assets.lost_inspections(s, now + timedelta(seconds=seconds), ring_again_s=60, **more)

    assert lost(0) == [asset.id]
    with house.database.transaction() as s:
        assets.mark_rung(s, asset.id)
    assert lost(30) == []
    assert lost(90) == [asset.id]
    assert lost(90, patience_s=3600) == []
    assert lost(4000, patience_s=3600) == [asset.id]
    with house.database.transaction() as s:
        assets.claim_inspection(s, asset.id, 120, now)
    assert lost(90) == []
    assert lost(150) == [asset.id]
    assert lost(150, patience_s=3600) == [asset.id], "its message was used up"


def test_the_object_of_an_asset_is_where_object_key_says(house: House) -> None:
    asset = house.add(b"abc")
    key = object_key(house.project.id, asset.sha256)
    assert key == f"projects/{house.project.id}/{asset.sha256[:2]}/{asset.sha256}"
    assert b"".join(house.store.open_range(key)) == b"abc"


def test_a_converted_upload_keeps_both_and_gives_up_both(house: House) -> None:
    asset = house.add(b"program")
    with house.database.transaction() as s:
        claimed = assets.claim_inspection(s, asset.id, lease_s=30)
        assert claimed is not None
    converted = {"sha256": house.keep(b"onnx model"), "size_bytes": 10}
    with house.database.transaction() as s:
        stale = assets.keep_conversion(s, house.store, asset.id, claimed.attempt - 1, **converted)
        assert stale.used_sha256 == asset.sha256
    with house.database.transaction() as s:
        kept = assets.keep_conversion(s, house.store, asset.id, claimed.attempt, **converted)
        assert (kept.used_sha256, kept.used_size_bytes) == (converted["sha256"], 10)
        assert assets.finish_inspection(s, asset.id, claimed.attempt, {})
    assert used(house) == 17
    assert house.add(b"program").id == asset.id
    sweep_orphans(house.database, house.store, older_than_s=-60)
    assert house.has(b"onnx model")
    delete(house, asset.id)
    assert not house.has(b"program")
    assert not house.has(b"onnx model")
    assert used(house) == 0


def test_there_must_be_room_for_what_it_is_converted_to(house: House) -> None:
    asset = house.add(b"program")
    sha256 = house.keep(b"onnx model")
    with house.database.transaction() as s:
        s.execute(update(Project).values(max_stored_bytes=16))
    with pytest.raises(QuotaExceeded), house.database.transaction() as s:
        assets.keep_conversion(s, house.store, asset.id, 0, sha256=sha256, size_bytes=10)
