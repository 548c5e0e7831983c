"""Identifiers that sort by the time they were made: `job_` and 26 characters of a ULID."""

import os
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32 leaves out i, l, o and u.
_RANDOM_BITS = 80


class _Ulids:
    """Makes strictly increasing 128-bit numbers: 48 bits of milliseconds, then 80 random bits.

    Within one millisecond, and when the clock steps back, the last number plus one is taken, so that the ids
    of one process never go backwards. Ids of several processes are ordered to the millisecond.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        milliseconds = time.time_ns() // 1_000_000
        fresh = (milliseconds << _RANDOM_BITS) | int.from_bytes(os.urandom(_RANDOM_BITS // 8))
        with self._lock:
            same_or_earlier = fresh >> _RANDOM_BITS <= self._last >> _RANDOM_BITS
            self._last = self._last + 1 if same_or_earlier else fresh
            return self._last


_ulids = _Ulids()
os.register_at_fork(after_in_child=_ulids.__init__)  # type: ignore[misc]


def new_id(prefix: str) -> str:
    """`prefix`, an underscore and 26 lower-case Crockford base32 characters; a later id sorts after."""
    number = _ulids.next()
    return f"{prefix}_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
