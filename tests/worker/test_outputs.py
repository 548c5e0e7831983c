"""Files of a child are taken only if they are plain files of its own folder."""

import os
import socket

import pytest

from db.blobs import object_key
from worker.failures import Failed
from worker.outputs import measure, open_plain, store_file


def refused(folder, path):
    with pytest.raises(Failed) as caught, open_plain(folder, path):
        pass
    return caught.value.code == "bad_output"


def test_a_plain_file_is_stored_under_its_hash(files, tmp_path):
    folder = tmp_path / "job"
    (folder / "steps").mkdir(parents=True)
    (folder / "steps" / "model.onnx").write_bytes(b"abc")
    stored = store_file(files, "prj_1", folder, "steps/model.onnx", max_bytes=3)
    assert stored.name == "model.onnx"
    assert stored.size_bytes == 3
    assert b"".join(files.open_range(object_key("prj_1", stored.sha256))) == b"abc"
    with pytest.raises(Failed):
        store_file(files, "prj_1", folder, "steps/model.onnx", max_bytes=2)


def test_links_and_devices_are_refused(tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / "symlink").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    os.link(secret, folder / "hardlink")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        names = ("symlink", "folder/secret", "hardlink", "fifo", "socket", ".", "missing")
        assert all(refused(folder, name) for name in names)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../secret", "a/../../secret", "a\0b"])
def test_paths_that_leave_the_folder_are_refused(tmp_path, path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "job"
    folder.mkdir()
    assert refused(folder, path)


def test_measuring_counts_bytes_and_stops_at_too_many(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_bytes(bytes(100_000))
    used, entries = measure(tmp_path, 100)
    assert used >= 100_000
    assert entries == 3
    for index in range(20):
        (tmp_path / str(index)).touch()
    assert measure(tmp_path, 10)[1] == 11
