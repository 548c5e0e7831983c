"""A system call filter for the child: it computes, and touches no process but its own descendants.

It forbids with EPERM: sockets, signals to others, others' memory, leaving its process group, namespaces
and mounts, and interfaces of the kernel with a long record of holes. Threads and processes stay allowed,
for a model's memory is measured in a process of its own. `clone3` answers ENOSYS, because a filter cannot
read its flags; the C library then uses `clone`.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator

from worker.linux import checked, libc

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_COLUMNS = ("x86_64", "aarch64")
_FORBIDDEN = {
    # sockets
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "listen": (50, 201),
    # other processes
    "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "setpgid": (109, 154), "setsid": (112, 157),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    # memory that no limit sees, and links to files of others
    "memfd_create": (319, 279), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186),
    "semget": (64, 190),
    "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "mknod": (133, None), "mknodat": (259, 33),
    # the kernel's soft spots
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "kexec_load": (246, 104),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "personality": (135, 92),
    "fanotify_init": (300, 262), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
}  # fmt: skip
_CLONE = (56, 220)
_CLONE3 = 435
_TGKILL = (234, 131)
_CLONE_NEW = 0x7E020000
_X32_BIT = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Whether this processor's system call numbers are known here."""
    return os.uname().machine in _ARCHITECTURES


def forbid() -> None:
    """Installs the filter on the calling thread and all it will start, for good.

    Needs `no_new_privileges`.
    """
    program = b"".join(struct.pack("HBBI", *line) for line in _program(os.uname().machine, os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    checked(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, head, 0, 0), "prctl(SECCOMP)")


def _program(machine: str, pid: int) -> Iterator[Instruction]:
    """Each block loads what it looks at and returns, or falls through to the next one."""
    column = _COLUMNS.index(machine)
    yield from ((_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL))
    yield (_LOAD, 0, 0, _NUMBER)
    yield from ((_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL))
    for numbers in _FORBIDDEN.values():
        number = numbers[column]
        if number is not None:
            yield from ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | errno.EPERM))
    yield from ((_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERROR | errno.ENOSYS))
    yield from ((_EQUAL, 0, 3, _CLONE[column]), (_LOAD, 0, 0, _FIRST_ARGUMENT))
    yield from ((_ANY_BIT, 0, 1, _CLONE_NEW), (_RETURN, 0, 0, _ERROR | errno.EPERM))
    yield from ((_EQUAL, 1, 0, _TGKILL[column]), (_RETURN, 0, 0, _ALLOW))
    yield (_LOAD, 0, 0, _FIRST_ARGUMENT)
    yield from ((_EQUAL, 0, 1, pid), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERROR | errno.EPERM))
