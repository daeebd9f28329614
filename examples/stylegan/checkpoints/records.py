# SPDX-License-Identifier: BSD-3-Clause
"""Tensors and numbers, of the records that a pickle leaves."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .archives import Storage, read_stream
from .checks import CheckpointError, shown
from .pickles import (
    DTYPES,
    ENCODE,
    LOAD_FROM_BYTES,
    MODULE,
    PARAMETERS,
    SCALARS,
    TENSORS,
    Budget,
    Record,
)

MOST_DIMENSIONS = 8
FORMATS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}  # of NumPy's types, for struct
ORDERS = {"<": "<", ">": ">", "=": "<", "|": "<"}  # of bytes, in NumPy's types


def is_module(value: Any) -> bool:
    """Whether it is an object of NVIDIA's, whose class comes with it as source text."""
    return type(value) is Record and value.name == MODULE and value.args is not None


def module_state(module: Record) -> dict[str, Any]:
    """The attributes of an object of NVIDIA's."""
    (meta,) = module.args or (None,)
    state = meta.get("state") if type(meta) is dict else None
    if type(state) is not dict:
        raise CheckpointError(f"must have a dict as each module's state, got {shown(state)}")
    return state


def values(part: Any, budget: Budget) -> Any:
    """What a pickle holds, with its tensors: numbers, strings, tensors, dicts, lists and tuples.

    Raises:
        CheckpointError: if it holds anything else, or more than ``budget`` has steps for: a small
            pickle can name one list very often.
    """
    budget.spend(1)
    if type(part) is dict:
        return {key: values(value, budget) for key, value in part.items()}
    if type(part) in (list, tuple):
        return type(part)(values(value, budget) for value in part)
    if part is None or type(part) in (bool, int, float, str):
        return part
    found = tensor(part, budget, of_any_type=True)
    if found is None:
        raise CheckpointError(f"must hold tensors, numbers and strings only, got {shown(part)}")
    return found


def tensor(value: Any, budget: Budget, of_any_type: bool = False) -> Tensor | None:
    """The tensor that a record stands for, if it stands for one of floating-point numbers.

    Its numbers are a copy, in the order of its indices, which the budget pays for.

    Args:
        value: the record.
        budget: of the file.
        of_any_type: take whole numbers and bools too.

    Raises:
        CheckpointError: if it is a tensor of numbers that the file does not have.
    """
    while type(value) is Record and value.name in PARAMETERS and value.args:
        value = value.args[0]
    if type(value) is not Record or value.name not in TENSORS or not value.args:
        return None
    storage, offset, size, stride, _, _, *more = value.args
    storage = _storage(storage, budget)
    dtype: torch.dtype | None = storage.dtype
    if value.name.endswith("_v3"):
        name, *more = more
        dtype = DTYPES.get(name.name) if type(name) is Record else None
    if dtype is None or any(more):  # more: is negated, and such
        return None
    if not dtype.is_floating_point and not (of_any_type and not dtype.is_complex):
        return None
    dims = (*size, *stride, offset) if type(size) is type(stride) is tuple else (None,)
    if not all(type(dim) is int and 0 <= dim < 2**63 for dim in dims) or len(size) != len(stride):
        raise CheckpointError(
            f"must have a size, a stride and an offset of whole numbers for each tensor, got "
            f"{shown((size, stride, offset))}"
        )
    if len(size) > MOST_DIMENSIONS:
        raise CheckpointError(
            f"must have tensors of up to {MOST_DIMENSIONS} dimensions, got {len(size)}"
        )
    count, width = math.prod(size), dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last + 1) * width > storage.size:
        raise CheckpointError(
            f"must have tensors within their storages, got one of size {shown(size)}, stride "
            f"{shown(stride)} and offset {offset} in a {storage}"
        )
    budget.copy(count * width)
    if not count:
        return torch.empty(size, dtype=dtype)
    steps = [step * width for step in stride]
    kind = f"<i{width}"  # for NumPy does not have all of torch's types
    numbers = np.ndarray(size, kind, storage.data, offset * width, steps)
    return torch.from_numpy(numbers.astype(f"=i{width}", order="C")).view(dtype)


def _storage(value: Any, budget: Budget) -> Storage:
    if type(value) is Record and value.name == LOAD_FROM_BYTES and value.args:
        value = read_stream(_bytes(value.args[0], budget), budget)
    if type(value) is not Storage:
        raise CheckpointError(f"must have a storage under each tensor, got {shown(value)}")
    return value


def number(value: Any, budget: Budget) -> Any:
    """The Python number of a record of NumPy's; anything else as it is."""
    if type(value) is not Record or value.name not in SCALARS or value.args is None:
        return value
    kind, data = value.args
    if type(kind) is not Record or kind.name != "numpy.dtype" or not kind.args:
        raise CheckpointError(f"must have a type for each NumPy number, got {shown(kind)}")
    code, order = kind.args[0], "="
    if type(kind.state) is tuple and len(kind.state) > 1:
        order = kind.state[1]
    if type(code) is not str or code not in FORMATS:
        raise CheckpointError(f"must have numbers of {', '.join(FORMATS)}, got {shown(code)}")
    if type(order) is not str or order not in ORDERS:
        raise CheckpointError(f"must have a byte order <, >, = or |, got {shown(order)}")
    return struct.unpack(ORDERS[order] + FORMATS[code], _bytes(data, budget))[0]


def _bytes(value: Any, budget: Budget) -> memoryview:
    """Bytes, as any protocol writes them."""
    if type(value) is Record and value.name == ENCODE and value.args and len(value.args) == 2:
        text, encoding = value.args
        if type(text) is str and encoding == "latin1":
            budget.copy(len(text))
            return memoryview(text.encode(encoding))
    if type(value) is not memoryview:
        raise CheckpointError(f"must have bytes, got {shown(value)}")
    return value
