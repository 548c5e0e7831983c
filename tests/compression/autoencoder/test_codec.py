"""Encoder and decoder as ONNX against the same in numpy, for every layout."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from compression.autoencoder.codec import Codec, decoder_graph, encoder_graph, fresh_codec, training_graph
from compression.autoencoder.layout import Layout, choose_layout
from compression.graph import save

RNG = np.random.default_rng(4)


def codec(features: int, **options: object) -> Codec:
    settings = {"tied": False, "activation": "relu", "kept": None, "seed": 1} | options
    return fresh_codec(features, 7, **settings)


def by_hand(one: Codec, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    code = rows @ one.encode + one.encode_bias
    code = {"relu": np.maximum(code, 0), "sigmoid": 1 / (1 + np.exp(-code)), "identity": code}[one.activation]
    if one.kept is not None:
        code = np.where(code >= np.sort(code, axis=-1)[:, -one.kept][:, None], code, 0)
    return code, code @ one.decoding + one.decode_bias


def run(model: object, folder: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    save(model, folder / "m.onnx")
    onnx.checker.check_model(onnx.load(folder / "m.onnx"), full_check=True)
    return ort.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"]).run(None, feeds)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("activation", "kept"), [("relu", None), ("sigmoid", None), ("identity", 3)])
def test_the_training_graph(tmp_path: Path, tied: bool, activation: str, kept: int | None) -> None:
    one = codec(5, tied=tied, activation=activation, kept=kept)
    rows = RNG.normal(size=(6, 5)).astype(np.float32)
    found, code = run(training_graph(one), tmp_path, {"rows": rows})
    expected_code, expected = by_hand(one, rows)
    np.testing.assert_allclose(code, expected_code, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    if kept is not None:
        assert (np.count_nonzero(code, axis=1) == kept).all()


@pytest.mark.parametrize(
    ("layout", "code_shape"),
    [
        (Layout(shape=(5,), axis=1), (4, 7)),
        (Layout(shape=(5, 2, 3), axis=1), (4, 2, 3, 7)),
        (Layout(shape=(3, 5), axis=2), (4, 3, 7)),
        (Layout(shape=(5, 2, 3), axis=None), (4, 7)),
        (Layout(shape=(5, 1, 1), axis=None), (4, 7)),
    ],
)
def test_encoder_and_decoder_take_samples_as_they_are(
    tmp_path: Path, layout: Layout, code_shape: tuple[int, ...]
) -> None:
    mean = RNG.normal(size=layout.features)
    trained = codec(layout.features)
    one = trained.standardised(mean, 2.5)
    samples = RNG.normal(size=(4, *layout.shape)).astype(np.float32)
    (code,) = run(encoder_graph(one, layout, "x"), tmp_path, {"x": samples})
    assert code.shape == code_shape
    (found,) = run(decoder_graph(one, layout, "x"), tmp_path, {"code": code})
    assert found.shape == samples.shape
    rows = layout.rows(samples)
    expected_code, expected = by_hand(trained, (rows - mean) / 2.5)
    np.testing.assert_allclose(code.reshape(-1, 7), expected_code, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layout.rows(found), expected * 2.5 + mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "axis", "unit", "features", "positions"),
    [
        ((8, 4, 4), 1, "auto", 8, 16),
        ((8, 4, 4), 1, "sample", 128, 1),
        ((6, 12), 2, "auto", 12, 6),
        ((12,), 1, "auto", 12, 1),
        ((12,), 1, "position", 12, 1),
        ((8, 1, 1), 1, "auto", 8, 1),
    ],
)
def test_what_counts_as_a_row(
    shape: tuple[int, ...], axis: int, unit: str, features: int, positions: int
) -> None:
    layout = choose_layout(shape, axis, unit)
    assert (layout.features, layout.positions) == (features, positions)
    assert layout.rows(np.zeros((3, *shape))).shape == (3 * positions, features)
