"""Element types: which torch type the view computes an ONNX type in.

Half precision is computed in float32. Torch has few operators for unsigned integers above 8 bits, and none
for 4-bit ones, so these are held in wider signed ones, in which their values are exact.
"""

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from compression.errors import NotTrainable

DTYPES: dict[ir.DataType, torch.dtype] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float32,
    ir.DataType.BFLOAT16: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.int32,
    ir.DataType.UINT32: torch.int64,
    ir.DataType.UINT64: torch.int64,
    ir.DataType.INT4: torch.int8,
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.INT2: torch.int8,
    ir.DataType.UINT2: torch.uint8,
    ir.DataType.COMPLEX64: torch.complex64,
    ir.DataType.COMPLEX128: torch.complex128,
}
WIDER = {
    np.dtype(np.float16): np.float32,
    np.dtype(np.uint16): np.int32,
    np.dtype(np.uint32): np.int64,
    np.dtype(np.uint64): np.int64,
}


def computed_dtype(dtype: int) -> torch.dtype:
    """The torch type for the number of an ONNX type, as attributes such as Cast's `to` give it.

    Raises:
        NotTrainable: the view has no such type: strings, 8-bit floats.
    """
    known = DTYPES.get(ir.DataType(dtype))
    if known is None:
        raise NotTrainable(f"tensors of type {ir.DataType(dtype).name} are not computed with")
    return known


def computed_array(array: np.ndarray) -> np.ndarray:
    """An array in the type that the view computes it in; bfloat16 and 4-bit ones come from ml_dtypes.

    Raises:
        NotTrainable: the view has no such type.
    """
    if array.dtype.kind in "OSU":
        raise NotTrainable("tensors of strings are not computed with")
    if array.dtype.name == "bfloat16" or array.dtype.name.startswith(("float8_", "float6_", "float4_")):
        return array.astype(np.float32)
    if array.dtype.name in ("int4", "int2"):
        return array.astype(np.int8)
    if array.dtype.name in ("uint4", "uint2"):
        return array.astype(np.uint8)
    return array.astype(WIDER.get(array.dtype, array.dtype), copy=False)


def computed_tensor(array: np.ndarray) -> Tensor:
    """A tensor with an array's values, in memory of its own and in the type the view computes in.

    Raises:
        NotTrainable: the view has no such type.
    """
    return torch.from_numpy(np.array(computed_array(array), order="C", copy=True))
