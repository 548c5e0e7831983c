"""The ONNX project's own node tests; benchmarks/trainable.md has the exact figures."""

from collections import Counter

import pytest
import torch

from benchmarks.node_cases import Outcome, Result, cases, run

WANTED_SHARE = 0.95
AS_ONNXRUNTIME = frozenset(
    {
        "test_resize_downsample_scales_linear_align_corners",
        "test_resize_downsample_scales_cubic_align_corners",
    }
)
"""Cases that onnxruntime answers otherwise than ONNX's reference; the view agrees with onnxruntime."""


@pytest.fixture(scope="module")
def results() -> list[Result]:
    torch.set_num_threads(1)
    return [run(case) for case in cases()]


def test_nearly_all_float_and_index_cases_pass(results: list[Result]) -> None:
    counted = [result for result in results if result.scope == "in"]
    failed = [f"{result.name}: {result.detail}" for result in counted if result.outcome is not Outcome.PASSED]
    assert len(counted) > 1000
    assert 1 - len(failed) / len(counted) >= WANTED_SHARE, "\n".join(failed)


def test_only_cases_that_onnxruntime_answers_otherwise_are_wrong(results: list[Result]) -> None:
    wrong = {result.name for result in results if result.scope == "in" and result.outcome is Outcome.WRONG}
    assert wrong == AS_ONNXRUNTIME


def test_none_crashes(results: list[Result]) -> None:
    crashed = [f"{result.name}: {result.detail}" for result in results if result.outcome is Outcome.CRASHED]
    assert not crashed
    assert Counter(result.outcome for result in results)[Outcome.REFUSED] > 0, "nothing was refused at all"
