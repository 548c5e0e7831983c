"""How work in the sandbox can end badly: a stable code, words for the user, and whether trying again helps.

SandboxError
├── Refused             the library said no: a domain error of the child, with its code
├── Failed              the child was stopped or died: out_of_memory, time_limit, disk_limit, crashed, ...
│   └── OutputGone      a file that it named is not there
├── Interrupted         the sandbox itself went away; the same work may be started again at once
└── Stopped             it was asked to stop
"""

import signal
from typing import Any


class SandboxError(Exception):
    """`document()` is what a job's or an asset's `error` holds."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        where: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.where = where
        self.retryable = retryable

    def document(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
            "retryable": self.retryable,
        }


class Refused(SandboxError):
    pass


class Failed(SandboxError):
    pass


class OutputGone(Failed):
    pass


class Interrupted(SandboxError):
    def __init__(self) -> None:
        super().__init__(
            "interrupted", "The sandbox went away while the work ran.", hint="Retry the job.", retryable=True
        )


class Stopped(Exception):
    """The caller's `stop` said so, and the child has ended."""


def out_of_memory(limit_bytes: int) -> Failed:
    return Failed(
        "out_of_memory",
        f"The work needed more than the {_size(limit_bytes)} of memory that it may use.",
        hint="Use a smaller model, fewer or smaller samples, or raise MODELPRESS_JOB_MEMORY_BYTES.",
    )


def time_limit(limit_s: float) -> Failed:
    return Failed(
        "time_limit",
        f"The work ran longer than its limit of {limit_s:.0f} seconds.",
        hint="Submit it with a higher time limit, fewer samples or fewer steps; finished steps are kept.",
    )


def disk_limit(limit_bytes: int) -> Failed:
    return Failed(
        "disk_limit",
        f"The work wrote more than the {_size(limit_bytes)} of files that it may write.",
        hint="Use a smaller model or a smaller dataset.",
    )


def process_limit(limit: int) -> Failed:
    return Failed(
        "process_limit",
        f"The work started more than the {limit} processes that it may have.",
        hint="The file was probably made to do so. If it is a sound one, please report it.",
    )


def output_flood() -> Failed:
    return Failed(
        "output_flood",
        "The work wrote far more messages than any sound run does.",
        hint="The file was probably made to do so. If it is a sound one, please report it.",
    )


def broken_protocol(what: str) -> Failed:
    return Failed(
        "broken_protocol",
        f"The sandbox child said something that it cannot mean: {what}.",
        hint="The file was probably made to do so. If it is a sound one, please report it.",
    )


def bad_output(name: str, what: str, kind: type[Failed] = Failed) -> Failed:
    return kind("bad_output", f"The result file {name!r} was not taken: {what}.", hint="Please report this.")


def no_space(what: str) -> Failed:
    return Failed(
        "quota_exceeded",
        f"There is no room for the converted model: {what}.",
        hint="Delete models, datasets or jobs that are no longer needed, and send it again.",
        retryable=True,
    )


def internal_error(message: str) -> Failed:
    return Failed(
        "internal_error",
        f"A defect of Modelpress stopped the work: {message}",
        hint="The worker's log has the details; please report them.",
    )


def not_started() -> Failed:
    return Failed(
        "sandbox_unavailable",
        "The sandbox on this worker could not start the work.",
        hint="The worker's log says why. Retry the job once that is mended.",
        retryable=True,
    )


def crashed(exit_code: int) -> Failed:
    """`exit_code` as `os.waitstatus_to_exitcode` gives it: negative for a signal."""
    how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
    return Failed(
        "crashed",
        f"The process that worked on the model ended {how} without a result.",
        hint="The model probably triggers a defect in a library. Another method, or other layers, may work.",
    )


def _size(count: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
