"""Uploads: both forms, identity of bytes, limits, hostile names, and nothing left behind."""

import hashlib

import pytest

from api.multipart import FormStream
from api.uploads import printable_name
from db import assets
from db.models import Project
from tests.api.conftest import RAW, SMALL_MODEL, client_of


def test_a_form_and_raw_bytes_give_the_same_model(client):
    form = client.post("/v1/models", files={"file": ("net.onnx", b"bytes")}, data={"name": "net"})
    raw = client.post("/v1/models?name=other", content=b"bytes", headers=RAW)

    assert form.status_code == 202
    assert form.headers["Location"] == f"/v1/models/{form.json()['id']}"
    assert form.headers["Retry-After"]
    assert (form.json()["name"], form.json()["filename"]) == ("net", "net.onnx")
    assert form.json()["sha256"] == hashlib.sha256(b"bytes").hexdigest()
    assert raw.json() == form.json()


def test_known_bytes_answer_200_once_they_are_inspected(client, model):
    again = client.post("/v1/models", content=b"model", headers=RAW)

    assert (again.status_code, again.json()["id"]) == (200, model)
    assert again.json()["summary"] == SMALL_MODEL.model_dump(mode="json")


def test_the_same_bytes_as_model_and_dataset_are_stored_once(client, services):
    for path in ("/v1/models", "/v1/datasets"):
        assert client.post(path, content=b"bytes", headers=RAW).status_code == 202
    assert len(list(services.store.list())) == 1


def test_a_refused_file_says_why(client, services):
    found = client.post("/v1/models", content=b"no model", headers=RAW).json()
    error = {"code": "invalid_model", "message": "it is text", "where": None, "hint": "send ONNX"}
    with services.database.transaction() as s:
        claimed = assets.claim_inspection(s, found["id"], 30)
        assets.refuse_asset(s, services.store, found["id"], claimed.attempt, error)

    shown = client.get(f"/v1/models/{found['id']}").json()
    assert shown["state"] == "refused"
    assert shown["error"]["message"] == "it is text"
    assert client.get(f"/v1/models/{found['id']}/content").status_code == 409
    assert list(services.store.list()) == []


def test_too_many_bytes_are_413_announced_or_not(open_settings, services):
    with client_of(open_settings.model_copy(update={"max_upload_bytes": 1000})) as client:
        announced = client.post("/v1/models", content=bytes(2000), headers=RAW)
        unannounced = client.post("/v1/models", content=iter([bytes(900)] * 3), headers=RAW)
        form = client.post("/v1/models", files={"file": ("a.onnx", bytes(2000))})

    for answer in (announced, unannounced, form):
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert_nothing_left(services)


def test_a_full_project_is_refused_with_numbers(client, services):
    client.post("/v1/models", content=b"first", headers=RAW)
    with services.database.transaction() as s:
        s.query(Project).update({"max_stored_bytes": 8})

    answer = client.post("/v1/models", content=b"second", headers=RAW)

    assert (answer.status_code, answer.json()["code"]) == (403, "quota_exceeded")
    assert answer.json()["errors"][0]["message"] == "limit 8, in use 5, wanted 6"
    assert client.post("/v1/models", content=b"first", headers=RAW).status_code == 202
    assert client.post("/v1/models", content=b"larger than all", headers=RAW).status_code == 403
    assert_nothing_left(services)


BODIES_THAT_ARE_NO_UPLOADS = [
    (b"", RAW, 422, "file_empty"),
    (b"{}", {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
    (b"x", {"Content-Type": "multipart/form-data"}, 400, "malformed_body"),
    (b"no form", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "malformed_body"),
    (b"--b\r\nContent-Dis", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "malformed_body"),
    (
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--b--\r\n',
        {"Content-Type": "multipart/form-data; boundary=b"},
        422,
        "file_missing",
    ),
    (
        2 * b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n' + b"--b--\r\n",
        {"Content-Type": "multipart/form-data; boundary=b"},
        422,
        "several_fields",
    ),
    (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ntruncated',
        {"Content-Type": "multipart/form-data; boundary=b"},
        400,
        "malformed_body",
    ),
]


def test_bodies_that_are_no_uploads(client, services, subtests):
    for body, headers, status, code in BODIES_THAT_ARE_NO_UPLOADS:
        with subtests.test(body=str(body)[:80]):
            answer = client.post("/v1/models", content=body, headers=headers)

            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert_nothing_left(services)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\models\\net.onnx", "net.onnx"),
        ("a\x00b\r\nSet-Cookie: x", "abSet-Cookie: x"),
        ("gnp.\u202eexe", "gnp.exe"),
        ("модель 1.onnx", "модель 1.onnx"),
        ("x" * 300, "x" * 255),
    ],
)
def test_names_lose_what_could_do_harm(given, kept):
    assert printable_name(given, 255) == kept


def test_a_hostile_name_stays_inside_its_header(client):
    name = 'a"; x=y.onnx'
    found = client.post("/v1/models", params={"filename": name}, content=b"bytes", headers=RAW).json()

    answer = client.get(f"/v1/models/{found['id']}/content")

    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=\"a__ x_y.onnx\"; filename*=UTF-8''a%22%3B%20x%3Dy.onnx"
    )


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_form_is_read_the_same_in_chunks_of_any_size(size):
    file = bytes(range(256)) * 20 + b"\r\n--b\r\n-"
    body = (
        b'--bound\r\nContent-Disposition: form-data; name="name"\r\n\r\nnet\r\n'
        b'--bound\r\nContent-Disposition: form-data; name="file"; filename="n.onnx"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + file + b"\r\n--bound--\r\n"
    )
    taken = bytearray()
    form = FormStream("multipart/form-data; boundary=bound", taken.extend)
    for start in range(0, len(body), size):
        form.feed(body[start : start + size])
    form.close()

    assert bytes(taken) == file
    assert (form.fields, form.filename) == ({"name": "net"}, "n.onnx")


def assert_nothing_left(services):
    """No object but what rows name, and no file of an upload that ended early."""
    assert not [path for path in services.settings.data.rglob("*incoming*/*") if path.is_file()]
