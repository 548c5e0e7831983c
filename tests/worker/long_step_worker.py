"""`python -m tests.worker.long_step_worker --queue cpu`: a worker whose optimize_graph is a long step."""

import sys
from functools import partial

import worker.__main__ as program
from worker.child import ENTRIES
from worker.sandbox import Sandbox

program.Sandbox = partial(  # type: ignore[misc, assignment]
    Sandbox, entries=(*ENTRIES, "tests.worker.long_step_installed:walk"), packages=("tests",)
)

if __name__ == "__main__":
    sys.exit(program.main())
