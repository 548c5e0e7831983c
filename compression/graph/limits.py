"""How large and how deep a file from outside may be before it is refused unread."""

MAX_PROTOBUF_BYTES = 2**31 - 1
"""Protobuf's own limit for one message."""
MAX_EXTERNAL_BYTES = 512 * 2**30
MAX_ALIASED_RATIO = 4
"""Bytes that tensors claim from external files, over the bytes these files hold."""
MAX_INLINE_BYTES = 64 * 2**20
"""What a tensor may grow to when it is not stored element by element (sparse initializers)."""
MAX_UNPACKED_BYTES = 256 * 2**30
MAX_UNPACK_RATIO = 200
"""Weights hardly shrink under compression; an archive that does hides a bomb, or zeros."""
FREE_UNPACKED_BYTES = 256 * 2**20
"""Below this an archive may unpack to any ratio."""
MAX_ARCHIVE_MEMBERS = 10_000
MAX_NESTING = 32
"""Bodies within bodies, and functions that call functions."""
MAX_NODES = 2_000_000
MAX_RANK = 64
MAX_ELEMENTS = 2**48
SINGLE_FILE_BYTES = 1_900_000_000
"""Models up to this size are written as one file."""
SMALL_TENSOR_BYTES = 1024
"""Tensors up to this size travel with the graph to tools that may want to read shapes and axes from them."""
