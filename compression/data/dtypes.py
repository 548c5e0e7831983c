"""Element types by name, those that numpy lacks included."""

import numpy as np

UNKNOWN = "unknown"
"""A model may leave an input's element type open; then an array goes in as it is."""
TEXT = frozenset({"str", "object", "string"})


def as_dtype(name: str) -> np.dtype:
    """numpy's type for a summary's `dtype`; text becomes object, as onnxruntime wants it."""
    if name in TEXT or name.startswith(("str", "bytes", "<U", "|S")):
        return np.dtype(object)
    if name == "bfloat16" or name.startswith(("float8", "float4", "int4", "uint4", "int2", "uint2")):
        import ml_dtypes

        found: np.dtype = np.dtype(getattr(ml_dtypes, name))
        return found
    return np.dtype(name)


def castable(source: str, target: str) -> bool:
    """Whether values of one type may stand for another without loss of meaning.

    Any real number goes to any float, integers to any integer (their range is checked when they are read),
    bool to any number. Floats never go to integers, numbers never to bool, and text only to text.
    Sequences and optionals are no arrays.
    """
    if target == UNKNOWN:
        return True
    if "(" in target:
        return False
    rank = {"bool": 0, "int": 1, "float": 2}
    first, second = _kind(source), _kind(target)
    if "text" in (first, second):
        return first == second
    if second == "bool":
        return first == "bool"
    return rank[first] <= rank[second]


def _kind(name: str) -> str:
    if as_dtype(name).kind == "O":
        return "text"
    if name == "bool":
        return "bool"
    return "int" if name.startswith(("int", "uint")) else "float"
