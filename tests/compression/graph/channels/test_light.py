"""The onnx wheel's own large networks: half of each group leaves."""

import onnx
import pytest

from compression.graph import load, save
from compression.graph.channels import TOLERANCE, cut, find_groups, prove
from tests.compression.graph.channels.cutting import doomed
from tests.compression.zoo import light

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SHARE_LEFT = 0.45
"""Of the bytes, at most, where half of the units leave."""


@pytest.mark.parametrize("name", light.NAMES)
def test_half_of_every_group_leaves(name, tmp_path):
    path, proto = tmp_path / "model.onnx", light.filled(name)
    onnx.save(proto, path)
    feeds = light.feeds(proto)
    del proto
    original, model = load(path), load(path)
    grouping = find_groups(model)
    chosen = doomed(grouping, 0.5)
    cut(model, chosen)
    (saved,) = save(model, tmp_path / "cut.onnx")
    assert prove(original, load(saved), chosen, feeds) <= TOLERANCE
    assert prove(original, original, chosen, feeds) > 10 * TOLERANCE
    assert saved.stat().st_size < SHARE_LEFT * path.stat().st_size
    locked = {item.layer for item in grouping.locked if not item.partly}
    assert len(locked) <= (9 if name == "shufflenet" else 3), grouping.locked
