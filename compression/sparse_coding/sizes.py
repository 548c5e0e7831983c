"""What sparse codes and dictionaries take in the file, told without opening a model."""

from typing import Literal

from compression.quantization.narrow.packing import folding_bytes, plane_bytes
from compression.quantization.uniform.sizes import SHIFT_OPSET, stored_bits

Storage = Literal["bits", "bytes"]
BYTE = 8
NODES = 1150
"""What the nodes, names and shapes of one tensor cost in the file, about, where codes are bytes."""
COUNTING = 1700
"""And the nodes that spread codes of different lengths."""
UNSCALED = 500
"""Of what folding bits into scaled floats costs, the part that bare codes do without."""
COUNT_OPSET = 11
"""The first with CumSum."""
HALF = 2
FEWEST, MOST = 16, 128
_SIGNALS_PER_ATOM = 8


def usual_atoms(signals: int) -> int:
    """A power of two from 16 to 128: an eighth of the signals at most, so that codes outweigh the dictionary."""
    fitting = max(signals // _SIGNALS_PER_ATOM, 1)
    return int(min(max(2 ** (fitting.bit_length() - 1), FEWEST), MOST))


def index_bits(atoms: int) -> int:
    return max((atoms - 1).bit_length(), 1)


def coded_bytes(
    signals: int,
    entries: int,
    atoms: int,
    block: int,
    value_bits: int,
    *,
    storage: Storage,
    opset: int = SHIFT_OPSET,
    most: int | None = None,
) -> int:
    """Bytes of a tensor's dictionary, codes and nodes, about.

    Args:
        signals: blocks that the tensor is cut into.
        entries: of all signals together.
        atoms: of the dictionary.
        block: length of an atom.
        value_bits: of an entry's gain.
        storage: codes as packed `bits`, or `bytes`.
        opset: of the model; bits need one that has BitShift.
        most: entries of the longest code where lengths differ and are stored; None where all are as long.
    """
    kinds = [(entries, index_bits(atoms)), (entries, value_bits)]
    if most is not None:
        kinds.append((signals, index_bits(most + 1)))
    size = atoms * block * HALF + NODES + (0 if most is None else COUNTING)
    for count, wanted in kinds:
        size += _plane_bytes(count, plane_bits(count, wanted, storage=storage, opset=opset))
    return size


def plane_bits(count: int, wanted: int, *, storage: Storage, opset: int) -> int:
    """Bits that each of so many codes takes: a byte where packing them would not pay for its nodes."""
    bits = stored_bits(wanted, opset) if storage == "bits" else BYTE
    return bits if _plane_bytes(count, bits) < count else BYTE


def _plane_bytes(count: int, bits: int) -> int:
    folding = folding_bytes(bits, symmetric=True) - UNSCALED if bits < BYTE else 0
    return plane_bytes(count, bits) + folding
