"""Landlock: a process gives up, for good, every file it has not named, TCP, and signals to anyone outside.

See the kernel's Documentation/userspace-api/landlock.rst. It needs no rights, works inside containers, and
is the layer that holds where namespaces are forbidden. What a kernel is too old for is left out.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from functools import cache

from worker.linux import checked, libc

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_MAKES = (
    sum(1 << bit for bit in (4, 5, 7, 8)) | _REFER
)  # remove a folder or file, make a folder or regular file
_WRITE = _READ | _WRITE_FILE | _MAKES | _TRUNCATE
_DEVICE = _READ_FILE | _WRITE_FILE | _IOCTL_DEV

_BIND_TCP_AND_CONNECT_TCP = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11


@cache
def version() -> int:
    """Of the kernel's Landlock; 0 where there is none."""
    return max(0, int(libc.syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)))


def restrict(*, read: Iterable[str], write: Iterable[str], devices: Iterable[str]) -> None:
    """From here on only these files and folders can be opened; paths that do not exist are skipped."""
    handled = _handled(version())
    ruleset = _new_ruleset(handled)
    try:
        for paths, rights in ((read, _READ), (write, _WRITE), (devices, _DEVICE)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        checked(libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _handled(abi: int) -> int:
    """Every right on files that this kernel knows, so that whatever is not allowed is denied."""
    rights = (1 << 13) - 1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        if abi >= since:
            rights |= right
    return rights


def _new_ruleset(handled: int) -> int:
    attributes = [handled]
    if version() >= 4:
        attributes.append(_BIND_TCP_AND_CONNECT_TCP)
    if version() >= 6:
        attributes.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    packed = struct.pack(f"{len(attributes)}Q", *attributes)
    made = libc.syscall(_CREATE_RULESET, packed, ctypes.c_size_t(len(packed)), 0)
    return checked(made, "landlock_create_ruleset")


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):  # noqa: PTH112
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, descriptor)
        checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(descriptor)
