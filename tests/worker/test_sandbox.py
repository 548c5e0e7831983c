"""Every way a child can end becomes a typed one, and costs nobody else anything."""

import itertools
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.worker.conftest import LIMITS, limits
from worker.failures import Failed, Interrupted, Refused, Stopped
from worker.machine import process_family
from worker.sandbox import Sandbox

H = "tests.worker.hostile:"


def run(sandbox: Sandbox, name: str, request: dict | None = None, **options) -> dict:
    with sandbox.folder(name) as folder:
        return dict(sandbox.run(H + name, folder, request or {}, **{"limits": LIMITS, **options}))


def code(sandbox: Sandbox, name: str, request: dict | None = None, **options) -> str:
    with pytest.raises(Failed) as caught:
        run(sandbox, name, request, **options)
    assert caught.value.message
    assert caught.value.hint
    return caught.value.code


def test_an_entry_answers(sandbox):
    assert run(sandbox, "echo", {"say": "ä"})["said"] == "ä"


def test_the_warm_parent_has_one_thread(best_sandbox):
    """A lock that another thread held at the fork would never be released in the child."""
    run(best_sandbox, "echo", {"say": 1})
    for pid in process_family(best_sandbox.parent_pid):
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1


def test_an_entry_that_is_not_allowed_is_not_run(sandbox):
    with sandbox.folder("x") as folder, pytest.raises(Failed) as caught:
        sandbox.run("os:getcwd", folder, {}, limits=LIMITS)
    assert caught.value.code == "sandbox_unavailable"


def test_a_refusal_keeps_its_code_and_hint(best_sandbox):
    with pytest.raises(Refused) as caught:
        run(best_sandbox, "refuse")
    assert caught.value.document() == {
        "code": "invalid_model",
        "message": "no model",
        "where": "layer",
        "hint": "bring one",
        "retryable": False,
    }


def test_a_defect_is_an_internal_error(best_sandbox):
    assert code(best_sandbox, "defect") == "internal_error"


def test_too_much_memory(sandbox):
    assert code(sandbox, "hog_memory") == "out_of_memory"


def test_too_much_memory_in_several_processes(best_sandbox):
    ask = {"processes": 4, "bytes": 200 << 20}
    assert code(best_sandbox, "hog_memory_in_pieces", ask) == "out_of_memory"


def test_too_many_processes(best_sandbox):
    assert code(best_sandbox, "fork_bomb", limits=limits(memory_bytes=8 << 30)) == "process_limit"


def test_an_endless_loop_meets_the_wall_clock(sandbox):
    began = time.monotonic()
    assert code(sandbox, "loop", limits=limits(wall_s=0.5), grace_s=0.2) == "time_limit"
    assert time.monotonic() - began < 5


def test_an_endless_loop_meets_the_processor_clock(best_sandbox):
    assert code(best_sandbox, "loop", limits=limits(cpu_s=1)) == "time_limit"


def test_a_segmentation_fault(sandbox):
    assert code(sandbox, "segfault") == "crashed"


@pytest.mark.parametrize("number", [0, 1, 42])
def test_leaving_without_a_word(best_sandbox, number):
    assert code(best_sandbox, "leave", {"code": number}) == "crashed"


def test_a_flood_of_output(best_sandbox):
    assert code(best_sandbox, "flood_output") == "output_flood"


def test_a_flood_of_events(best_sandbox):
    assert code(best_sandbox, "flood_events") == "output_flood"


def test_too_much_on_disk(best_sandbox):
    assert code(best_sandbox, "fill_disk") == "disk_limit"


@pytest.mark.parametrize(
    "text",
    [
        "no json\n",
        "[]\n",
        '{"kind": "unknown"}\n',
        '{"kind": "event"}\n',
        '{"kind": "event", "event": {"x": NaN}}\n',
        '{"kind": "timing", "wanted": 1}\n',
        '{"kind": "error", "code": "../../etc", "message": "m"}\n',
        '{"kind": "result", "result": {}}\n{"kind": "result", "result": {}}\n',
        "[" * 100_000 + "\n",
        "\ud800\n".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_nonsense_on_the_pipe(best_sandbox, text):
    assert code(best_sandbox, "babble", {"text": text}) == "broken_protocol"


def test_stop_ends_a_cooperative_child_at_once(best_sandbox):
    began = time.monotonic()
    with pytest.raises(Stopped):
        run(best_sandbox, "loop", stop=lambda: time.monotonic() - began > 0.3, grace_s=20)
    assert time.monotonic() - began < 5


def test_stop_ends_a_deaf_child_after_its_grace(best_sandbox):
    ready = threading.Event()
    began = time.monotonic()
    with pytest.raises(Stopped):
        run(best_sandbox, "ignore_stop", on_event=lambda _: ready.set(), stop=ready.is_set, grace_s=1)
    assert 1 <= time.monotonic() - began < 6


def test_what_a_child_leaves_behind_ends_with_it(sandbox):
    run(sandbox, "echo", {"say": 1})
    before = process_family(sandbox.parent_pid)
    run(sandbox, "leave_behind")
    deadline = time.monotonic() + 10
    while process_family(sandbox.parent_pid) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process_family(sandbox.parent_pid) == before


def test_an_error_of_the_listener_ends_the_child(best_sandbox):
    def raise_it(_event):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(best_sandbox, "ignore_stop", on_event=raise_it)


def test_a_crash_costs_the_others_nothing(best_sandbox):
    with ThreadPoolExecutor(4) as pool:
        sound = [pool.submit(run, best_sandbox, "time_something", {"s": 0.1}) for _ in range(3)]
        assert code(best_sandbox, "segfault") == "crashed"
        assert all(future.result() for future in sound)


def test_only_one_child_of_a_machine_times(best_sandbox):
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(run, best_sandbox, "time_something", {"s": 0.2}) for _ in range(3)]
        spans = sorted((job.result()["began"], job.result()["ended"]) for job in jobs)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_the_end_of_the_warm_parent_interrupts_and_is_mended(best_sandbox):
    def kill_parent(_event):
        os.kill(best_sandbox.parent_pid, signal.SIGKILL)

    with pytest.raises(Interrupted) as caught:
        run(best_sandbox, "ignore_stop", on_event=kill_parent)
    assert caught.value.retryable
    assert run(best_sandbox, "echo", {"say": 1})["said"] == 1


def test_folders_are_removed(best_sandbox):
    with best_sandbox.folder("x") as folder:
        assert list(folder.iterdir()) == []
    assert not Path(folder).exists()
