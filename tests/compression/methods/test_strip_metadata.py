"""strip_metadata: the file loses what exporters noted, and nothing that computes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compression.methods.strip_metadata import StripMetadata
from tests.compression.quantization import graphs

SECRET = "/home/someone/train.py"


def noted(model: onnx.ModelProto) -> onnx.ModelProto:
    """With everything that an exporter may write down."""
    model.doc_string = model.graph.doc_string = SECRET
    model.metadata_props.add(key="trace", value=SECRET)
    model.graph.metadata_props.add(key="trace", value=SECRET)
    for node in model.graph.node:
        node.doc_string = SECRET
        node.metadata_props.add(key="trace", value=SECRET)
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.doc_string = SECRET
        value.metadata_props.add(key="trace", value=SECRET)
    for attribute in (item for node in model.graph.node for item in node.attribute):
        attribute.doc_string = SECRET
    return model


@pytest.mark.parametrize("name", graphs.ALL)
def test_nothing_is_left_and_answers_stay(name: str, tmp_path: Path) -> None:
    model = noted(graphs.ALL[name]())
    outcome = StripMetadata().apply(graphs.opened(model, tmp_path), graphs.context(tmp_path))
    path = graphs.written(outcome.model, tmp_path)
    assert SECRET.encode() not in path.read_bytes()
    given = graphs.feeds(model, 2)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert all(np.array_equal(one, two) for one, two in zip(before, after, strict=True))
    assert outcome.details["entries"] > 0


def test_types_of_inner_values_go(tmp_path: Path) -> None:
    model = graphs.shared()
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 64]))
    outcome = StripMetadata().apply(graphs.opened(model, tmp_path), graphs.context(tmp_path))
    assert not onnx.load(graphs.written(outcome.model, tmp_path)).graph.value_info


def test_a_clean_model_has_nothing_to_lose(tmp_path: Path) -> None:
    model = graphs.plain()
    outcome = StripMetadata().apply(graphs.opened(model, tmp_path), graphs.context(tmp_path))
    assert outcome.details["entries"] == 0
    assert outcome.notes == ("there was nothing to take out",)
