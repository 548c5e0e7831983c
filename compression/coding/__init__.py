"""Files that are really smaller: the packed format, written from ONNX files and read back byte for byte.

Reading needs numpy, constriction and zstandard, and neither onnx nor torch nor onnxruntime.
"""

from compression.coding.files import unpack_file, unpack_stream
from compression.coding.inspecting import inspect
from compression.coding.packing import PackedReport, PackedTensor, pack_file
from compression.coding.unpacking import Unpacker

__all__ = [
    "PackedReport",
    "PackedTensor",
    "Unpacker",
    "inspect",
    "pack_file",
    "unpack_file",
    "unpack_stream",
]
