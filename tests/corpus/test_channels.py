"""Channel groups of every real model: what is cut is proven, and what is not has a reason."""

import os
from pathlib import Path

import pytest

from compression.errors import CompressionError
from compression.graph import interface, load, save
from compression.graph.channels import TOLERANCE, cut, find_groups, prove
from compression.graph.synthetic import synthesise
from tests.compression.graph.channels.cutting import doomed

pytestmark = [pytest.mark.corpus, pytest.mark.timeout(900)]
MODELS = sorted(Path(os.environ.get("MODELPRESS_CORPUS", ".corpus")).glob("*.onnx"))


@pytest.mark.parametrize("path", MODELS or [None], ids=lambda path: path.stem if path else "none")
def test_a_real_model_is_cut_or_says_why_not(path, tmp_path):
    if path is None:
        pytest.skip("no models: run `make test-corpus`")
    original, model = load(path), load(path)
    grouping = find_groups(model)
    assert grouping.groups or grouping.locked
    assert all(item.reason for item in grouping.locked)
    if not grouping.groups:
        return
    chosen = doomed(grouping, 0.3)
    cut(model, chosen)
    (saved,) = save(model, tmp_path / "cut.onnx")
    assert saved.stat().st_size < path.stat().st_size
    inputs, _ = interface(original)
    try:
        feeds = next(iter(synthesise(inputs, 1, 0, original)))
    except CompressionError as error:
        pytest.skip(error.message)
    assert prove(original, load(saved), chosen, feeds) <= TOLERANCE
