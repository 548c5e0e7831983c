"""The ONNX project's own node tests; benchmarks/trainable.md has the exact figures."""

from collections import Counter

import pytest
import torch

from benchmarks.node_cases import Outcome, Result, cases, run

WANTED_SHARE = 0.95


@pytest.fixture(scope="module")
def results() -> list[Result]:
    torch.set_num_threads(1)
    return [run(case) for case in cases()]


def test_nearly_all_float_and_index_cases_pass(results: list[Result]) -> None:
    counted = [result for result in results if result.scope == "in"]
    failed = [f"{result.name}: {result.detail}" for result in counted if result.outcome is not Outcome.PASSED]
    assert len(counted) > 1000
    assert 1 - len(failed) / len(counted) >= WANTED_SHARE, "\n".join(failed)


def test_no_case_gives_a_wrong_answer_in_scope(results: list[Result]) -> None:
    wrong = [f"{r.name}: {r.detail}" for r in results if r.scope == "in" and r.outcome is Outcome.WRONG]
    assert not wrong


def test_none_crashes(results: list[Result]) -> None:
    crashed = [f"{result.name}: {result.detail}" for result in results if result.outcome is Outcome.CRASHED]
    assert not crashed
    assert Counter(result.outcome for result in results)[Outcome.REFUSED] > 0, "nothing was refused at all"
