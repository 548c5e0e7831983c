"""The object store's contract, on local files and on a real S3 server."""

import hashlib
import os
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from db.errors import InvalidKey, ObjectMissing, StorageUnavailable
from db.local_store import LocalStore
from db.settings import Settings
from db.storage import CHUNK_BYTES, ObjectStore, open_store
from tests.servers import S3, free_port

KEY = "projects/prj_1/ab/abcdef"
MIB = 2**20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """More than one multipart part and more than one chunk, with an odd end."""
    path = tmp_path / "source"
    path.write_bytes(os.urandom(17 * MIB + 3))
    return path


def test_put_then_get_gives_the_same_bytes(store: ObjectStore, source: Path, tmp_path: Path) -> None:
    store.put(KEY, source)
    store.get(KEY, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert store.size(KEY) == 17 * MIB + 3
    assert store.exists(KEY)
    assert source.exists()


def test_putting_again_replaces(store: ObjectStore, tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        (tmp_path / "source").write_bytes(content)
        store.put(KEY, tmp_path / "source")
    assert b"".join(store.open_range(KEY)) == b"second"


def test_a_range_is_what_slicing_gives(store: ObjectStore, source: Path) -> None:
    store.put(KEY, source)
    content = source.read_bytes()
    edge, end = CHUNK_BYTES, 17 * MIB
    ranges = [(0, None), (0, 0), (0, 1), (5, 5), (edge - 1, edge + 1), (end, None), (3, 10**9), (10**9, None)]
    for start, stop in ranges:
        chunks = list(store.open_range(KEY, start, stop))
        assert b"".join(chunks) == content[start:stop]
        assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


def test_a_range_may_be_left_unread(store: ObjectStore, source: Path) -> None:
    store.put(KEY, source)
    chunks = store.open_range(KEY)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    with store.begin() as incoming:
        incoming.commit(KEY)
    assert store.size(KEY) == 0
    assert list(store.open_range(KEY)) == []


def test_what_is_not_there_is_missing_at_once(store: ObjectStore, tmp_path: Path) -> None:
    assert not store.exists(KEY)
    with pytest.raises(ObjectMissing):
        store.size(KEY)
    with pytest.raises(ObjectMissing):
        store.open_range(KEY)
    with pytest.raises(ObjectMissing):
        store.get(KEY, tmp_path / "target")
    assert list(tmp_path.glob("*target*")) == []
    store.delete(KEY)


def test_deleting_removes_only_that_object(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    for key in (KEY, KEY + "0"):
        store.put(key, tmp_path / "source")
    store.delete(KEY)
    assert [found.key for found in store.list("projects/")] == [KEY + "0"]
    assert [found.size_bytes for found in store.list()] == [1]
    assert list(store.list("other")) == []


def test_a_key_cannot_leave_the_store(store: ObjectStore, tmp_path: Path) -> None:
    outside = ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a/", ".incoming/x", "a\\..\\b"]
    (tmp_path / "source").write_bytes(b"x")
    for key in [*outside, "a/b\0", "a/b\n", "ä", "a" * 200, "a/" * 300 + "a"]:
        for call in (store.size, store.exists, store.delete, store.open_range):
            with pytest.raises(InvalidKey):
                call(key)
        with pytest.raises(InvalidKey):
            store.put(key, tmp_path / "source")
        with pytest.raises(InvalidKey):
            store.get(key, tmp_path / "target")


def test_an_upload_is_hashed_as_it_comes(store: ObjectStore) -> None:
    chunks = [os.urandom(700_000) for _ in range(14)]
    with store.begin() as incoming:
        for chunk in chunks:
            incoming.write(chunk)
        assert incoming.sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()
        assert incoming.size_bytes == 9_800_000
        assert not store.exists(KEY)
        incoming.commit(KEY)
    assert b"".join(store.open_range(KEY)) == b"".join(chunks)


def test_an_aborted_upload_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), store.begin() as incoming:
        incoming.write(b"half")
        raise ZeroDivisionError
    assert list(store.list()) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_a_dead_upload_left_is_swept(store: ObjectStore) -> None:
    dead = store.begin()
    dead.write(b"half")
    assert store.sweep_incoming(older_than_s=3600) == 0
    assert store.sweep_incoming(older_than_s=0) == 1
    dead.abort()


def test_a_large_upload_takes_little_memory(store: ObjectStore) -> None:
    """Were it to hold a fixed share of the bytes, six times the allowance would show it."""
    process, chunk, peak = psutil.Process(), bytes(MIB), 0
    store.check()
    before = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with store.begin() as incoming:
        for _ in range(384):
            incoming.write(chunk)
        incoming.commit(KEY)
    done.set()
    watcher.join()
    assert store.size(KEY) == 384 * MIB
    assert peak - before < 64 * MIB
    store.delete(KEY)


def test_check_passes_where_objects_can_be_stored(store: ObjectStore) -> None:
    store.check()
    assert list(store.list()) == []


def test_check_tells_that_a_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailable):
        LocalStore(tmp_path / "objects").check()


def test_check_tells_that_there_is_no_bucket(s3_settings: Settings) -> None:
    store = open_store(s3_settings.model_copy(update={"storage_url": "s3://not-a-bucket/x"}))
    with pytest.raises(StorageUnavailable, match="not-a-bucket"):
        store.check()
    store.close()


def test_a_server_that_is_down_is_unavailable_within_seconds(s3_settings: Settings, tmp_path: Path) -> None:
    down = s3_settings.model_copy(update={"s3_endpoint": f"http://127.0.0.1:{free_port()}"})
    store = open_store(down)
    started = time.monotonic()
    (tmp_path / "source").write_bytes(b"x")
    with pytest.raises(StorageUnavailable):
        store.check()
    with pytest.raises(StorageUnavailable):
        store.put(KEY, tmp_path / "source")
    assert time.monotonic() - started < 15
    store.close()


def test_downloads_are_presigned_only_for_a_public_endpoint(
    s3_settings: Settings, s3: S3, files: LocalStore
) -> None:
    assert files.presign(KEY, "model.onnx", 60) is None
    private = open_store(s3_settings)
    assert private.presign(KEY, "model.onnx", 60) is None
    public = open_store(s3_settings.model_copy(update={"s3_public_endpoint": s3.endpoint}))
    with public.begin() as incoming:
        incoming.write(b"bytes")
        incoming.commit(KEY)
    url = public.presign(KEY, 'mödel "1".onnx', 60)
    assert url is not None
    answer = httpx.get(url)
    assert (answer.status_code, answer.content) == (200, b"bytes")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''m%C3%B6del%20%221%22.onnx"
    private.close()
    public.close()


def test_a_storage_url_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="file:// or s3://"):
        open_store(Settings(data=tmp_path, storage_url="ftp://host/x"))
