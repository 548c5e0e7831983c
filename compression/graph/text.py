"""Whether every name in a message is text: protobuf hands over bytes where it is not."""

from typing import Any

from compression.errors import InvalidModel
from compression.graph.limits import MAX_NESTING

DATA_FIELDS = frozenset({"raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"})
LEVELS_PER_BODY = 5
"""Messages between a graph and a body inside it."""


def check_text(message: Any, depth: int = 0) -> None:
    """Walks a whole protobuf message.

    Raises:
        InvalidModel: a name is not UTF-8, or messages are nested too deep.
    """
    if depth > MAX_NESTING * LEVELS_PER_BODY:
        raise InvalidModel(f"bodies are nested more than {MAX_NESTING} deep")
    for field, value in message.ListFields():
        if field.name in DATA_FIELDS:
            continue
        if field.type == field.TYPE_MESSAGE:
            for item in value if field.is_repeated else (value,):
                check_text(item, depth + 1)
        elif field.type == field.TYPE_STRING:
            for item in value if field.is_repeated else (value,):
                if not isinstance(item, str):
                    raise InvalidModel(f"the {field.name} {item!r} is not UTF-8")
