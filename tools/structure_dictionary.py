"""Gathers the packed format's dictionary on the structure of ONNX files: `python -m tools.structure_dictionary FILES`.

No paths, source lines or names of classes get into it other than those of torch itself.
The dictionary is part of the format: another one is another version of it.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import helper

from compression.coding.frames import DICTIONARY
from compression.coding.locating import locate

SIZE_BYTES = 20 << 10
GRAM = 8
TARGET = Path(__file__).parent.parent / "compression" / "coding" / DICTIONARY


OTHERS_LINES = re.compile(rb'( *File "(?![^"]*/site-packages/torch/)[^"]*", line[^\n]*\n[^\n]*\n?)')
PATHS = re.compile(rb'"/[^"]*?/site-packages/torch/')
OTHERS_CLASSES = re.compile(rb"\b(?!torch\.)[A-Za-z_]\w*(\.\w+)+\.[A-Z]\w+")


def cleaned(data: bytes) -> bytes:
    """Without what tells of a machine or of somebody's source."""
    return OTHERS_CLASSES.sub(
        b"", PATHS.sub(b'"/lib/python3.11/site-packages/torch/', OTHERS_LINES.sub(b"", data))
    )


def structure(data: bytes) -> bytes:
    """A file without its tensors' payloads."""
    parts, at = [], 0
    for payload in locate(data):
        if payload.location is None:
            parts.append(data[at : payload.start])
            at = payload.start + payload.size
    return b"".join([*parts, data[at:]])


def operators() -> Iterator[bytes]:
    """A node of each operator of the default set, with the names of its attributes."""
    for schema in onnx.defs.get_all_schemas():
        if schema.domain:
            continue
        node = onnx.NodeProto(op_type=schema.name, name=f"node_{schema.name}_1")
        for name, attribute in sorted(schema.attributes.items()):
            kind = int(attribute.type)
            if kind == onnx.AttributeProto.INT:
                node.attribute.append(helper.make_attribute(name, 1))
            elif kind == onnx.AttributeProto.INTS:
                node.attribute.append(helper.make_attribute(name, [1, 1]))
            elif kind == onnx.AttributeProto.FLOAT:
                node.attribute.append(helper.make_attribute(name, 1.0))
        yield node.SerializeToString()


def fresh(samples: Iterator[bytes]) -> Iterator[bytes]:
    """Stretches of the samples that no earlier one holds; a match costs least near the end."""
    seen: set[bytes] = set()
    for sample in samples:
        grams = [sample[at : at + GRAM] for at in range(max(len(sample) - GRAM + 1, 0))]
        kept = bytearray()
        for at, gram in enumerate(grams):
            if gram not in seen:
                kept += sample[max(at, 0) : at + 1] if at + 1 < len(grams) else gram
        seen.update(grams)
        yield bytes(kept)


def main() -> None:
    """The files that matter most come first, and stand last."""
    samples = [cleaned(structure(Path(name).read_bytes())) for name in sys.argv[1:]]
    parts = list(fresh(iter([*samples, *operators()])))
    TARGET.write_bytes(b"".join(reversed(parts))[-SIZE_BYTES:])


if __name__ == "__main__":
    main()
