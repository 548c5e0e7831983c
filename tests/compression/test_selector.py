"""Which layers a pattern picks, and what is said when it picks none."""

import pytest

from compression.errors import SelectorMatchedNothing
from compression.selector import LayerSelector
from tests.compression.models import layer_summary

LAYERS = (
    layer_summary("encoder.conv1", "Conv", 4, 3, 3, 3),
    layer_summary("encoder.fc", "Gemm", 4, 4),
    layer_summary("decoder/fc[0]", "Gemm", 4, 4),
)


def names(**patterns: tuple[str, ...]) -> list[str]:
    return [layer.name for layer in LayerSelector(**patterns).select(LAYERS)]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({}, ["encoder.conv1", "encoder.fc", "decoder/fc[0]"]),
        ({"include": ("encoder.*",)}, ["encoder.conv1", "encoder.fc"]),
        ({"include": ("op:Gemm",), "exclude": ("encoder.fc",)}, ["decoder/fc[0]"]),
        ({"include": ("op:G*", "encoder.conv1")}, ["encoder.conv1", "encoder.fc", "decoder/fc[0]"]),
        ({"include": ("decoder/fc[0]",)}, ["decoder/fc[0]"]),
        ({"exclude": ("*fc*",)}, ["encoder.conv1"]),
    ],
)
def test_patterns(patterns: dict[str, tuple[str, ...]], expected: list[str]) -> None:
    assert names(**patterns) == expected


@pytest.mark.parametrize(
    ("patterns", "where", "hint"),
    [
        ({"include": ("encodr.conv1",)}, "encodr.conv1", "encoder.conv1"),
        ({"include": ("Encoder.*",)}, "Encoder.*", "encoder.fc"),
        ({"exclude": ("nothing like it",)}, "nothing like it", "decoder/fc[0]"),
        ({"include": ("op:Convolution",)}, "op:Convolution", "did you mean op:Conv?"),
        ({"include": ("op:Gemm",), "exclude": ("*fc*",)}, None, "op:Gemm"),
    ],
)
def test_nothing_matched_lists_what_is_near(
    patterns: dict[str, tuple[str, ...]], where: str | None, hint: str
) -> None:
    with pytest.raises(SelectorMatchedNothing) as caught:
        names(**patterns)
    assert caught.value.where == where
    assert hint in (caught.value.hint or "")
