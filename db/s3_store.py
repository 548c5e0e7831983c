"""Objects in a bucket of Amazon S3 or of a server that speaks its protocol."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from db.errors import ObjectMissing, StorageError, StorageUnavailable
from db.incoming import IncomingObject
from db.local_store import sweep_folder
from db.settings import Settings
from db.storage import CHUNK_BYTES, ObjectInfo, ObjectStore, checked_key

# At most four parts of 8 MiB are in memory. S3 takes 10,000 parts, so those of files beyond 80 GB are larger.
_TRANSFER = TransferConfig(multipart_threshold=8 << 20, multipart_chunksize=8 << 20, max_concurrency=4)
_MISSING = {"404", "NoSuchKey", "NotFound"}


class S3Store(ObjectStore):
    """One bucket, optionally under a prefix. Uploads wait on the local disk until their hash is known."""

    def __init__(self, settings: Settings, *, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._incoming = settings.data / "incoming"
        self._client = _client(settings, settings.s3_endpoint)
        public = settings.s3_public_endpoint
        self._public_client = _client(settings, public) if public else None

    def prepare(self) -> None:
        with _translated(self._bucket):
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if error.response["Error"]["Code"] not in {"404", "NoSuchBucket"}:
                    raise
                self._client.create_bucket(Bucket=self._bucket)

    def put(self, key: str, source: Path) -> None:
        with _translated(key):
            self._client.upload_file(str(source), self._bucket, self._name(key), Config=_TRANSFER)

    def get(self, key: str, target: Path) -> None:
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with _translated(key):
                self._client.download_file(self._bucket, self._name(key), str(draft), Config=_TRANSFER)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    def open_range(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        size = self.size(key)
        end = size if stop is None else min(stop, size)
        if start >= end:
            return iter(())
        with _translated(key):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._name(key), Range=f"bytes={start}-{end - 1}"
            )
        return _chunks(key, answer["Body"])

    def size(self, key: str) -> int:
        with _translated(key):
            return int(self._client.head_object(Bucket=self._bucket, Key=self._name(key))["ContentLength"])

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except ObjectMissing:
            return False
        return True

    def delete(self, key: str) -> None:
        with _translated(key), contextlib.suppress(ObjectMissing):
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        with _translated(prefix):
            for page in pages:
                yield from map(self._info, page.get("Contents", ()))

    def presign(self, key: str, filename: str, seconds: int) -> str | None:
        if self._public_client is None:
            return None
        disposition = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        wish = {"Bucket": self._bucket, "Key": self._name(key), "ResponseContentDisposition": disposition}
        return str(self._public_client.generate_presigned_url("get_object", Params=wish, ExpiresIn=seconds))

    def begin(self) -> IncomingObject:
        return IncomingObject(self._incoming, self.put)

    def sweep_incoming(self, older_than_s: float) -> int:
        return sweep_folder(self._incoming, older_than_s)

    def check(self) -> None:
        try:
            with _translated(self._bucket):
                self._client.head_bucket(Bucket=self._bucket)
        except ObjectMissing as error:
            raise StorageUnavailable(f"There is no bucket {self._bucket}") from error

    def close(self) -> None:
        for client in filter(None, (self._client, self._public_client)):
            client.close()

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _info(self, found: dict[str, Any]) -> ObjectInfo:
        key = str(found["Key"]).removeprefix(self._prefix)
        return ObjectInfo(key=key, size_bytes=int(found["Size"]), modified_at=found["LastModified"])


def _client(settings: Settings, endpoint: str | None) -> Any:
    """Credentials that are not set come from boto3's own chain (environment, instance role)."""
    access, secret = settings.s3_access_key, settings.s3_secret_key
    session = boto3.session.Session(
        aws_access_key_id=access.get_secret_value() if access else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        region_name=settings.s3_region,
    )
    config = Config(
        connect_timeout=3,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=50,
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if endpoint else {},
    )
    return session.client("s3", endpoint_url=endpoint, config=config)


def _chunks(key: str, body: Any) -> Iterator[bytes]:
    with contextlib.closing(body), _translated(key):
        while chunk := body.read(CHUNK_BYTES):
            yield chunk


@contextlib.contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except ClientError as error:
        if str(error.response.get("Error", {}).get("Code")) in _MISSING:
            raise ObjectMissing(f"There is no object {key}") from error
        raise StorageUnavailable(f"The object {key} cannot be reached: {error}") from error
    except (BotoCoreError, HTTPClientError, boto3.exceptions.Boto3Error) as error:
        raise StorageUnavailable(f"The object store did not do {key}: {error}") from error
    except OSError as error:
        raise StorageUnavailable(f"The object {key} cannot be copied: {error.strerror}") from error
