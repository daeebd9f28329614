# SPDX-License-Identifier: BSD-3-Clause
"""Files as plain data: nothing in them is executed.

Torch's files are read with ``weights_only=True``; NVIDIA's pickles, which carry the source text of
their networks, with :class:`RestrictedUnpickler`, which knows the few names that such files need
and refuses all others.
"""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from .checks import CheckpointError, shown

# A file of a whole training at 1024 pixels has 33,000. This bounds what no size of a file does: the
# depth of its tuples, which Python's hash follows without a limit, and the numbers of its memo, for
# which Python sets aside memory.
MOST_OPCODES = 100_000
LEGACY = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)  # torch before 1.6: this first,
LEGACY_PICKLES = 5  # of five, and then the numbers
FORMATS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}  # of NumPy's types, for struct


def parse(data: bytes) -> Any:
    """A file as plain Python, with tensors, or with :class:`Module` and :class:`Held`."""
    if data.startswith((b"PK\x03\x04", LEGACY)):
        return _torch_load(data)
    if data.startswith(pickle.PROTO):
        _check_opcodes(io.BytesIO(data))
        return RestrictedUnpickler(io.BytesIO(data)).load()
    raise CheckpointError(f"must be a whole checkpoint, got a file that starts with {data[:12]!r}")


def _torch_load(data: bytes) -> Any:
    """torch.load with ``weights_only``, and with the one type that rosinality's training adds."""
    if data.startswith(LEGACY):
        stream = io.BytesIO(data)
        for _ in range(LEGACY_PICKLES):
            _check_opcodes(stream)
    else:
        _check_archive(data)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is not None:
            raise _refused(refused[1]) from None
        reason = str(error).rpartition("WeightsUnpickler error:")[2]  # without torch's advice
        raise pickle.UnpicklingError(reason.strip()) from None


def _refused(name: str) -> CheckpointError:
    return CheckpointError(f"must hold data only, got one that asks for {name}, which is refused")


def _check_archive(data: bytes) -> None:
    """Raise for a zip archive that costs more than its size."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
        if total > len(data):
            raise CheckpointError(
                f"must be an archive without compression, as torch's are, got {total:,} bytes in "
                f"{len(data):,}"
            )
        for entry in archive.infolist():
            if entry.filename.endswith("data.pkl"):
                _check_opcodes(io.BytesIO(archive.read(entry)))


def _check_opcodes(stream: io.BytesIO) -> None:
    """Read one pickle of a stream, and raise if it costs more than its size."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count >= MOST_OPCODES:
            raise CheckpointError(f"must be a pickle of at most {MOST_OPCODES:,} opcodes, got more")
        if "PUT" in opcode.name and argument > MOST_OPCODES:
            raise CheckpointError(
                f"must number its memo up to {MOST_OPCODES:,}, got {shown(argument)}"
            )


# What stands for the objects of a pickle


class _Sealed:
    """An object that a pickle may pass on, and may not change: BUILD calls ``__setstate__``."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise CheckpointError(f"must leave {self!r} as it is, got {shown(state)} to set")


class Held(_Sealed):
    """A tensor, or a storage's numbers [n], out of the pickle's reach."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __repr__(self) -> str:
        return f"<tensor {list(self.tensor.shape)}>"


class Module(_Sealed):
    """An object of NVIDIA's: its state, without the class whose source text the file has."""

    __slots__ = ("state",)

    def __init__(self, meta: Any) -> None:
        state = _typed(dict, meta, "a dict for each module").get("state")
        self.state = _typed(dict, state, "a dict as each module's state")

    def __repr__(self) -> str:
        return "<module>"


class _DType:
    """A number's type in NumPy's pickles, such as f8; BUILD gives the order of its bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = _typed(str, code, "names of NumPy's types"), "="
        if code not in FORMATS:
            raise CheckpointError(f"must have numbers of {', '.join(FORMATS)}, got {shown(code)}")

    def __setstate__(self, state: Any) -> None:
        order = state[1] if type(state) is tuple and len(state) > 1 else state
        if order not in ("<", ">", "=", "|"):
            raise CheckpointError(f"must have a byte order <, >, = or |, got {shown(order)}")
        self.order = order.replace("|", "=")

    def __repr__(self) -> str:
        return f"<dtype {self.code}>"


def _typed(kind: type, value: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise CheckpointError(f"must have {what}, got {shown(value)}")
    return value


def _scalar(dtype: Any, data: Any) -> Any:
    _typed(_DType, dtype, "a type for each NumPy number")
    data = _typed(bytes, data, "bytes for each NumPy number")
    return struct.unpack(dtype.order + FORMATS[dtype.code], data)[0]


def _storage(data: Any) -> Held:
    """A storage's numbers [n], from a file of torch's within the pickle."""
    storage = _torch_load(_typed(bytes, data, "bytes for each storage"))
    _typed(torch.TypedStorage, storage, "a storage in each storage's file")
    return Held(torch.empty(0, dtype=storage.dtype).set_(storage))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Held:
    numbers: Tensor = _typed(Held, storage, "a storage under each tensor").tensor
    return Held(numbers.as_strided(size, stride, offset))  # which refuses what is out of bounds


def _parameter(data: Any, *_: Any) -> Held:
    held: Held = _typed(Held, data, "a tensor in each parameter")
    return held


class _Allowed(_Sealed):
    """A function that a pickle may call."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __repr__(self) -> str:
        return f"<function {self._function.__name__}>"


class RestrictedUnpickler(pickle.Unpickler):
    """Reads NVIDIA's pickles; ``ALLOWED`` is all that they can name.

    None of it is the named object itself, but what does the same for data alone: modules come as
    their attributes, tensors without hooks, dictionaries of all kinds as dict. No opcode changes
    any of it; tensors stay behind :class:`Held`, whose only opcode is to be passed on.
    """

    ALLOWED: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Allowed(Module),
        ("dnnlib.util", "EasyDict"): dict,
        ("collections", "OrderedDict"): dict,
        ("builtins", "set"): set,  # of files of pickle protocol 3, as Python 3.7 wrote them
        ("torch._utils", "_rebuild_parameter"): _Allowed(_parameter),
        ("torch._utils", "_rebuild_tensor_v2"): _Allowed(_tensor),
        ("torch.storage", "_load_from_bytes"): _Allowed(_storage),
        ("numpy", "dtype"): _Allowed(_DType),
        ("numpy._core.multiarray", "scalar"): _Allowed(_scalar),
        ("numpy.core.multiarray", "scalar"): _Allowed(_scalar),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise _refused(f"{module}.{name}")
        return self.ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _refused(f"the persistent object {shown(pid)}")
