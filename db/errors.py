"""The domain errors of the state.

StateError
├── NotFound                 no such row in this project
├── Conflict                 the row is in a state that rules the wish out
│   ├── AssetInUse           a live job still reads it
│   ├── AssetNotReady        it is still being inspected, or was refused
│   └── JobFinished          a final job can no longer be cancelled
├── QuotaExceeded            a limit of the project: `quota`, `limit`, `used`, `wanted`
└── StorageError             the object store could not do it; `retryable` says if it may later
    ├── ObjectMissing        no object has this key
    ├── InvalidKey           not a key at all; a defect of the caller
    └── StorageUnavailable   the store cannot be reached or is full
"""

from typing import ClassVar


class StateError(Exception):
    """Something the state refuses. `code` is stable; `retryable`: the same call may succeed later."""

    code: ClassVar[str] = "state_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFound(StateError):
    code = "not_found"


class Conflict(StateError):
    code = "conflict"


class AssetInUse(Conflict):
    code = "asset_in_use"


class AssetNotReady(Conflict):
    code = "asset_not_ready"


class JobFinished(Conflict):
    code = "job_finished"


class QuotaExceeded(StateError):
    """`quota` is the name of the project's column that sets the limit; all three numbers are in its unit."""

    code = "quota_exceeded"

    def __init__(self, quota: str, *, limit: int, used: int, wanted: int) -> None:
        super().__init__(f"{quota} is {limit}: {used} in use, {wanted} more wanted")
        self.quota = quota
        self.limit = limit
        self.used = used
        self.wanted = wanted


class StorageError(StateError):
    code = "storage_error"
    retryable = True


class ObjectMissing(StorageError):
    code = "object_missing"
    retryable = False


class InvalidKey(StorageError):
    code = "invalid_key"
    retryable = False


class StorageUnavailable(StorageError):
    code = "storage_unavailable"
