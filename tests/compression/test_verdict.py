import pytest

from compression.verdict import speed_word, verdict
from tests.compression.sample_measurements import interval, measurements, output

CASES = [
    (
        measurements(3.9, 0.96, changes={"accuracy": (-0.003, False)}),
        "3.9x smaller, 4% slower, accuracy -0.3 points (not significant)",
    ),
    (
        measurements(3.9, 1.62, changes={"accuracy": (-0.03, True)}),
        "3.9x smaller, 1.6x faster, accuracy -3.0 points",
    ),
    (
        measurements(1.0, 1.0, sparsity=0.5, changes={"accuracy": (0.0, False)}),
        "zeros only: the file is not smaller until packed, same speed within noise, accuracy unchanged",
    ),
    (measurements(1.001, 1.0), "not smaller: 1.00x, same speed within noise, outputs keep 34 dB"),
    (measurements(1.03, 1.12), "3% smaller, 12% faster, outputs keep 34 dB"),
    (measurements(0.97, 0.5), "3% larger, 2.0x slower, outputs keep 34 dB"),
    (measurements(0.5, None), "larger: 2.0x the size, speed not measured, outputs keep 34 dB"),
    (measurements(39.6, 1.1, spread=0.2), "40x smaller, same speed within noise, outputs keep 34 dB"),
    (measurements(4, 0.81), "4.0x smaller, 1.2x slower, outputs keep 34 dB"),
    (
        measurements(2, 1, fidelity={"y": output(3.2)}),
        "2.0x smaller, same speed within noise, outputs differ strongly (3 dB): check before use",
    ),
    (
        measurements(2, 1, fidelity={"y": output(14)}, data="synthetic"),
        "2.0x smaller, same speed within noise, outputs keep only 14 dB on synthetic inputs",
    ),
    (
        measurements(2, 1, fidelity={"y": output(None)}, data="synthetic"),
        "2.0x smaller, same speed within noise, outputs equal on synthetic inputs",
    ),
    (
        measurements(2, 1, fidelity={"a": output(40), "b": output(31)}),
        "2.0x smaller, same speed within noise, outputs keep at least 31 dB",
    ),
    (
        measurements(2, 1, fidelity={"a": output(40), "b": output(4)}),
        "2.0x smaller, same speed within noise, output 'b' differs strongly (4 dB): check before use",
    ),
    (
        measurements(2, 1, fidelity={"y": output(None, exact=False, agreement=0.9996, cosine=None)}),
        "2.0x smaller, same speed within noise, outputs equal in 99.9% of entries",
    ),
    (
        measurements(2, 1, fidelity={"y": output(None, exact=False, agreement=0.5, cosine=None)}),
        "2.0x smaller, same speed within noise, outputs equal in 50.0% of entries: check before use",
    ),
    (
        measurements(2, 1, fidelity={}, incomparable=("boxes",)),
        "2.0x smaller, same speed within noise, outputs could not be compared",
    ),
    (
        measurements(2, 1, incomparable=("boxes",)),
        "2.0x smaller, same speed within noise, outputs keep 34 dB, 'boxes' not comparable",
    ),
    (
        measurements(2, 1, fidelity={"y": output(20, finite=False, newly_nonfinite=True)}),
        "do not use: output 'y' holds NaN or infinity where the original gives numbers; "
        "2.0x smaller, same speed within noise, outputs keep 20 dB",
    ),
    (
        measurements(2, 1, changes={"accuracy": (0.004, False), "f1": (-0.08, True), "recall": (0.1, True)}),
        "2.0x smaller, same speed within noise, accuracy +0.4 points (not significant), f1 -8.0 points",
    ),
    (
        measurements(2, 1, changes={"mse": (0.19, True), "mae": (0.0, False)}),
        "2.0x smaller, same speed within noise, mse +20.0%",
    ),
    (
        measurements(2, 1, changes={"accuracy": (-0.0002, False)}),
        "2.0x smaller, same speed within noise, accuracy -0.02 points (not significant)",
    ),
]


@pytest.mark.parametrize(("measured", "sentence"), CASES, ids=[case[1][:60] for case in CASES])
def test_sentence(measured, sentence):
    assert verdict(measured) == sentence


@pytest.mark.parametrize(
    ("value", "spread", "word"),
    [
        (1.5, 0.1, "faster"),
        (0.8, 0.1, "slower"),
        (1.5, 0.6, "within noise"),
        (1.01, 0.001, "within noise"),
        (0.99, 0.001, "within noise"),
        (1.025, 0.001, "within noise"),
        (1.04, 0.01, "faster"),
    ],
)
def test_speed_needs_both_an_interval_beyond_one_and_a_margin(value, spread, word):
    assert speed_word(interval(value, spread)) == word


def test_no_speedup_is_not_measured():
    assert speed_word(None) == "not measured"
