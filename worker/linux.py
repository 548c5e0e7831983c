"""The few Linux system calls that the sandbox needs and Python does not offer."""

import ctypes
import os
import signal
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> int:
    """Raises `OSError` where a call says -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """The kernel sends the signal when the thread that started this process ends."""
    checked(libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl(PDEATHSIG)")


def hide_process() -> None:
    """Only CAP_SYS_PTRACE can now attach to this process, or read its environment, memory or open files."""
    checked(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(DUMPABLE)")


def no_new_privileges() -> None:
    """No later exec can gain rights, whatever bits its file carries."""
    checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(NO_NEW_PRIVS)")


def drop_capabilities() -> None:
    """Gives up every capability for good; root without them is a user like any other."""
    capability = 0
    while libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    checked(libc.syscall(_SYS_CAPSET[os.uname().machine], header, bytes(24)), "capset")


def unshare(flags: int) -> None:
    """Moves this process into namespaces of its own; CLONE_NEWUSER needs it to be single-threaded."""
    checked(libc.unshare(flags), "unshare")


def map_user(uid: int, gid: int) -> None:
    """In a fresh user namespace, keeps the names of the one user and group that exist there."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    result = libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    checked(result, f"mount {target}")


def bind(source: str, target: str, *, read_only: bool) -> None:
    """Shows `source` at `target`, with everything mounted below it."""
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        mount("", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | _kept_flags(target))


def pivot_root(folder: str) -> None:
    """Makes `folder`, a mount point, the root, and lets go of the old one."""
    os.chdir(folder)
    checked(libc.syscall(_SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    checked(libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def _kept_flags(target: str) -> int:
    """Flags of the mount below, which a user namespace must not clear."""
    flags = os.statvfs(target).f_flag
    return flags & (MS_NOSUID | MS_NODEV | 8 | 1024 | 2048)
