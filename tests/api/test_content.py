"""Downloads: ETags, conditional requests and ranges."""

import httpx
import pytest

from db.settings import Settings
from tests.api.conftest import RAW, client_of
from tests.conftest import s3_options

BYTES = bytes(range(256)) * 10_000


@pytest.fixture
def path(client):
    found = client.post("/v1/models?filename=net.onnx", content=BYTES, headers=RAW).json()
    return f"/v1/models/{found['id']}/content"


def test_the_bytes_come_back_with_their_hash_as_etag(client, path):
    answer = client.get(path)

    assert answer.content == BYTES
    sha256 = client.get(path.removesuffix("/content")).json()["sha256"]
    assert answer.headers["ETag"] == f'"sha256-{sha256}"'
    assert answer.headers["Content-Length"] == str(len(BYTES))
    head = client.head(path)
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(BYTES)))


ONE_RANGE = [
    ("bytes=0-0", 0, 1),
    ("bytes=10-1999999", 10, 2_000_000),
    ("bytes=2559999-", 2_559_999, 2_560_000),
    ("bytes=-5", 2_559_995, 2_560_000),
    ("bytes=-99999999", 0, 2_560_000),
    ("bytes=5-99999999999", 5, 2_560_000),
]


def test_one_range(client, path, subtests):
    for asked, start, stop in ONE_RANGE:
        with subtests.test(asked=str(asked)[:80]):
            answer = client.get(path, headers={"Range": asked})

            assert answer.status_code == 206
            assert answer.content == BYTES[start:stop]
            assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(BYTES)}"


WHAT_IS_NO_SINGLE_RANGE_GIVES_THE_WHOLE = ["bytes=0-1,5-6", "bytes=-", "bytes=5-1", "lines=0-1", "bytes=a-b"]


def test_what_is_no_single_range_gives_the_whole(client, path, subtests):
    for asked in WHAT_IS_NO_SINGLE_RANGE_GIVES_THE_WHOLE:
        with subtests.test(asked=str(asked)[:80]):
            answer = client.get(path, headers={"Range": asked})
            assert (answer.status_code, len(answer.content)) == (200, len(BYTES))


A_RANGE_OUTSIDE_IS_416 = ["bytes=2560000-", "bytes=9999999999-9999999999", "bytes=-0"]


def test_a_range_outside_is_416(client, path, subtests):
    for asked in A_RANGE_OUTSIDE_IS_416:
        with subtests.test(asked=str(asked)[:80]):
            answer = client.get(path, headers={"Range": asked})
            assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{len(BYTES)}")
            assert answer.headers["Content-Type"] == "application/problem+json"


def test_conditional_requests(client, path):
    etag = client.head(path).headers["ETag"]

    for given in (etag, f'"other", W/{etag}', "*"):
        answer = client.get(path, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get(path, headers={"Range": "bytes=0-1", "If-Range": etag}).status_code == 206
    assert client.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200


def test_the_store_serves_by_itself_where_clients_reach_it(postgres_url, tmp_path, s3, broker_url):
    options = s3_options(s3) | {"s3_public_endpoint": s3.endpoint, "inspection_wait_s": 0.0, "auth": False}
    settings = Settings(data=tmp_path, database_url=postgres_url, broker_url=broker_url, **options)
    with client_of(settings) as client:
        found = client.post("/v1/models?filename=net.onnx", content=BYTES, headers=RAW).json()
        answer = client.get(found["links"]["content"])
        stored = httpx.get(answer.headers["Location"], headers={"Range": "bytes=5-9"}, trust_env=False)

    assert (answer.status_code, answer.headers["ETag"]) == (307, f'"sha256-{found["sha256"]}"')
    assert (stored.status_code, stored.content) == (206, BYTES[5:10])
    assert "net.onnx" in stored.headers["Content-Disposition"]
