"""The step cache: found again, bounded, and never the last holder of bytes that others use."""

from db import projects, step_results
from db.models import AssetKind
from tests.db.conftest import House


def keep(house: House, key: str, **files: bytes) -> None:
    parts = [
        step_results.StepFile(name=name, sha256=house.keep(content), size_bytes=len(content))
        for name, content in files.items()
    ]
    with house.database.transaction() as s:
        step_results.store_step_result(
            s, house.store, house.project.id, key, files=parts, outcome={"key": key}
        )


def found(house: House, key: str, project_id: str | None = None) -> bool:
    with house.database.transaction() as s:
        return step_results.find_step_result(s, project_id or house.project.id, key) is not None


def prune(house: House, **bounds: int) -> int:
    given = {"max_bytes": 10**9, "max_entries": 10**9, **bounds}
    with house.database.transaction() as s:
        return step_results.prune_step_results(s, house.store, house.project.id, **given)


def test_a_result_is_found_by_its_key_in_its_project(house: House) -> None:
    keep(house, "k1", model=b"model", data=b"external")
    with house.database.transaction() as s:
        result = step_results.find_step_result(s, house.project.id, "k1")
        assert result is not None
    assert result.outcome == {"key": "k1"}
    assert [(part.name, part.size_bytes) for part in result.files] == [("data", 8), ("model", 5)]
    assert result.size_bytes == 13
    assert not found(house, "k2")
    assert not found(house, "k1", "prj_other")


def test_the_first_result_of_a_key_stays(house: House) -> None:
    keep(house, "k", model=b"first")
    keep(house, "k", model=b"second")
    with house.database.transaction() as s:
        result = step_results.find_step_result(s, house.project.id, "k")
        assert result is not None
        assert result.files[0].size_bytes == len(b"first")


def test_the_cache_does_not_count_towards_the_quota(house: House) -> None:
    keep(house, "k", model=b"model")
    with house.database.read() as s:
        assert projects.stored_bytes(s, house.project.id) == 0
    house.add(b"model")
    with house.database.read() as s:
        assert projects.stored_bytes(s, house.project.id) == 5


def test_what_was_not_used_for_longest_goes_first(house: House) -> None:
    for key in ("k1", "k2", "k3"):
        keep(house, key, model=key.encode())
    assert found(house, "k1"), "which counts as a use"
    assert prune(house, max_entries=2) == 1
    assert [found(house, key) for key in ("k1", "k2", "k3")] == [True, False, True]
    assert [house.has(content) for content in (b"k1", b"k2", b"k3")] == [True, False, True]


def test_the_bytes_are_bounded_too(house: House) -> None:
    for key in ("k1", "k2", "k3"):
        keep(house, key, model=key.encode() * 5)
    assert prune(house, max_bytes=30) == 0
    assert prune(house, max_bytes=29) == 1
    assert prune(house, max_bytes=0) == 2
    with house.database.read() as s:
        assert step_results.projects_with_step_results(s) == []
    assert not house.has(b"k3" * 5)


def test_pruning_leaves_bytes_that_an_asset_or_another_result_uses(house: House) -> None:
    house.add(b"uploaded", AssetKind.MODEL)
    keep(house, "k1", model=b"uploaded", data=b"common")
    keep(house, "k2", model=b"common")
    assert prune(house, max_entries=1) == 1
    assert house.has(b"uploaded")
    assert house.has(b"common")
    assert prune(house, max_entries=0) == 1
    assert house.has(b"uploaded")
    assert not house.has(b"common")
