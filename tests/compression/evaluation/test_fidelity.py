import numpy as np
import pytest

from compression.evaluation.fidelity import FidelityMeter, sqnr_db


def meter(*batches):
    found = FidelityMeter()
    for x, y in batches:
        found.add({"y": np.asarray(x)}, {"y": np.asarray(y)})
    return found


def test_float_output_is_measured_as_by_hand_over_batches():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 7)).astype(np.float32)
    y = x + rng.normal(size=x.shape).astype(np.float32) * 0.1
    found = meter((x[:4], y[:4]), (x[4:], y[4:])).result["y"]
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    noise = ((wide_x - wide_y) ** 2).sum()
    assert found.sqnr_db == pytest.approx(10 * np.log10((wide_x**2).sum() / noise))
    cosine = (wide_x * wide_y).sum() / np.linalg.norm(wide_x) / np.linalg.norm(wide_y)
    assert found.cosine == pytest.approx(cosine)
    assert found.max_abs_error == pytest.approx(np.abs(wide_x - wide_y).max())
    assert found.agreement == (x.argmax(1) == y.argmax(1)).mean()
    assert not found.exact and found.finite


def test_equal_outputs_are_exact():
    found = meter(([[1.0, 2.0]], [[1.0, 2.0]])).result["y"]
    assert found.exact and found.sqnr_db is None and found.agreement == 1 and found.max_abs_error == 0
    assert found.cosine == pytest.approx(1)


def test_nan_beside_nan_is_equal_but_not_finite():
    found = meter(([[np.nan, 2.0]], [[np.nan, 2.0]])).result["y"]
    assert found.exact and not found.finite and not found.newly_nonfinite


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_new_nan_and_infinity_are_flagged_and_kept_out_of_the_sums(broken):
    found = meter(([[1.0, 2.0, 3.0]], [[1.5, broken, 3.0]])).result["y"]
    assert found.newly_nonfinite and not found.finite and not found.exact
    assert found.sqnr_db == pytest.approx(10 * np.log10(10 / 0.25))
    assert found.max_abs_error == 0.5


def test_an_original_that_is_not_finite_is_not_the_compressed_models_fault():
    found = meter(([[np.inf, 2.0]], [[1.0, 2.0]])).result["y"]
    assert not found.finite and not found.newly_nonfinite


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_integers_are_compared_by_equality(dtype):
    x = np.array([[1, 0, 1, 1]], dtype)
    y = np.array([[1, 0, 0, 1]], dtype)
    found = meter((x, y)).result["y"]
    assert (found.sqnr_db, found.cosine, found.agreement, found.max_abs_error) == (None, None, 0.75, 1.0)


def test_agreement_is_left_out_where_there_is_no_class_axis():
    for shape in [(4,), (4, 1), (2, 3, 8, 8)]:
        x = np.random.default_rng(0).normal(size=shape)
        assert meter((x, x * 1.01)).result["y"].agreement is None


def test_agreement_per_position():
    x = np.eye(3)[None].repeat(2, axis=0)
    y = x.copy()
    y[0, 0] = [0, 1, 0]
    assert meter((x, y)).result["y"].agreement == pytest.approx(5 / 6)


def test_shapes_that_depend_on_values_are_not_compared():
    found = meter((np.zeros((3, 4)), np.zeros((3, 4))), (np.zeros((3, 4)), np.zeros((2, 4))))
    assert found.result == {}
    assert "[3, 4]" in found.incomparable["y"] and "[2, 4]" in found.incomparable["y"]


def test_strings_missing_outputs_and_empty_ones_are_not_compared():
    found = FidelityMeter()
    found.add(
        {"text": np.array(["a"], object), "gone": np.ones(1), "boxes": np.zeros((0, 4)), "ok": np.ones(1)},
        {"text": np.array(["a"], object), "boxes": np.zeros((0, 4)), "ok": np.ones(1)},
    )
    assert set(found.incomparable) == {"text", "gone", "boxes"}
    assert set(found.result) == {"ok"}


def test_an_output_empty_on_some_inputs_only_is_compared_on_the_others():
    found = meter((np.zeros((0, 4)), np.zeros((0, 4))), (np.ones((1, 4)), np.ones((1, 4))))
    assert found.result["y"].exact and not found.incomparable


def test_sqnr_stays_within_200_db():
    assert sqnr_db(1.0, 0.0) is None
    assert sqnr_db(0.0, 1.0) == -200
    assert sqnr_db(1e-300, 1e300) == -200
    assert sqnr_db(100.0, 1.0) == pytest.approx(20)


def test_half_precision_is_summed_wide():
    x = np.full((4, 2000), 300.0, np.float16)
    found = meter((x, x + np.float16(1))).result["y"]
    assert found.sqnr_db == pytest.approx(20 * np.log10(300))
