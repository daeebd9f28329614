# SPDX-License-Identifier: BSD-3-Clause
"""A machine that reads pickles of data, and can do nothing else.

It knows the opcodes that Python's pickler writes in the protocols 2 to 5, and builds None, bools,
numbers, strings, bytes, tuples, lists, dicts with strings or whole numbers as keys, what a file's
reader makes of references to storages, and :class:`Record`: the name and the arguments of a call
that is never made. Sets come as lists, and dictionaries of all kinds as dicts.

Three rules bound what a pickle costs. A step of the file's :class:`Budget` is spent on each opcode.
Bytes of the pickle are looked at where they are, or copied once. What went into something else is
finished: no opcode can change it from then on, so that nothing contains itself, and the depth of
each thing is known when it is made.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterable
from typing import Any

import torch

from .checks import CheckpointError, shown

# A training of 1024 pixels has 33,000 opcodes. An opcode takes about 1 microsecond and at most 200
# bytes, which the opcode of an empty dict takes.
MOST_STEPS = 200_000
MOST_COPIES = 3  # of a file's size: as text in protocol 2, as bytes of that, and as numbers
MOST_DEPTH = 200  # of things within things; NVIDIA's networks have 25
MOST_NUMBERS_AS_KEYS = 10_000  # their hashes are known, so a file could have them collide
LONGEST_NAME = 100  # bytes of a module's or a class's name


class Budget:
    """What reading a file of ``size`` bytes may still cost.

    ``steps`` are opcodes, items that were looked at and words of their keys. ``bytes`` are those
    that are copied from the file.
    """

    def __init__(self, size: int) -> None:
        self.size, self.bytes = size, MOST_COPIES * size
        self.steps = MOST_STEPS
        self.numbers_as_keys = MOST_NUMBERS_AS_KEYS

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise CheckpointError(f"must be read in at most {MOST_STEPS:,} steps, got more")

    def copy(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise CheckpointError(
                f"must be a whole checkpoint, got more than {MOST_COPIES * self.size:,} bytes of "
                f"numbers and strings in {self.size:,} bytes"
            )


class Record:
    """An object that a pickle asks for, as inert data.

    ``args`` are those of its call, or None for the class or the function itself; ``state`` is what
    the object would be given after the call.
    """

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] | None = None) -> None:
        self.name, self.args = name, args
        self.state: Any = None

    def __repr__(self) -> str:
        return f"<{self.name}>"


MODULE = "torch_utils.persistence._reconstruct_persistent_obj"
LOAD_FROM_BYTES = "torch.storage._load_from_bytes"
ENCODE = "_codecs.encode"  # how protocol 2 writes bytes
PARAMETERS = {f"torch._utils._rebuild_parameter{end}" for end in ("", "_with_state")}
TENSORS = {f"torch._utils._rebuild_tensor{end}" for end in ("_v2", "_v3")}
SCALARS = {f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")}
STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.storage.UntypedStorage": torch.uint8,  # the tensor has the type
}
DTYPES = {f"torch.{k}": v for k, v in vars(torch).items() if isinstance(v, torch.dtype)}
DICTS = {"collections.OrderedDict", "collections.defaultdict", "dnnlib.util.EasyDict"}
WITH_STATE = {"argparse.Namespace", "numpy.dtype"}
WITH_STATE |= {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}  # of arrays
# Tensors that no network here has as weights
OTHER_TENSORS = {
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_sparse_tensor"),
    *("torch._utils._rebuild_qtensor", "torch._utils._rebuild_meta_tensor_no_storage"),
    "torch._tensor._rebuild_from_type_v2",
}
# A checkpoint may have these beside its networks, and nothing here looks into them. A defaultdict
# names the class of its default values, which is often one of Python's own. Protocol 2 writes int
# and str as Python 2 named them, long and unicode. Python 3.13 has its paths in pathlib._local.
BUILTINS = ("bool", "bytearray", "bytes", "complex", "dict", "float", "int", "list", "long", "set")
PATHS = ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
OTHERS = {
    *(f"builtins.{name}" for name in (*BUILTINS, "str", "tuple", "unicode")),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in PATHS),
    *("collections.Counter", "torch.serialization._get_layout"),
    *("torch.Size", "torch.device", "torch.Tensor", "torch.nn.parameter.Parameter"),
    *("numpy.ndarray", "numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
}
NAMES = {MODULE, LOAD_FROM_BYTES, ENCODE} | PARAMETERS | TENSORS | SCALARS
NAMES |= STORAGES.keys() | DTYPES.keys() | DICTS | WITH_STATE | OTHER_TENSORS | OTHERS
RENAMED = {"__builtin__": "builtins"}  # by Python's pickler, in protocol 2


def refused(name: str) -> CheckpointError:
    return CheckpointError(f"must hold data only, got one that asks for {name}, which is refused")


def read_pickle(
    data: memoryview, start: int, budget: Budget, persistent: Callable[[Any], Any]
) -> tuple[Any, int]:
    """The value of the pickle at ``start``, and where the pickle ends.

    ``persistent`` makes something of what a pickle refers to outside of itself.

    Raises:
        CheckpointError: if it asks for anything but data, or for more than ``budget`` has.
        Exception: of any kind, if it is no pickle.
    """
    machine = _Machine(data, start, budget, persistent)
    return machine.run(), machine.at


class _Machine:
    def __init__(
        self, data: memoryview, start: int, budget: Budget, persistent: Callable[[Any], Any]
    ) -> None:
        self.data, self.at = data, start
        self.budget, self.persistent = budget, persistent
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # stacks below each mark
        self.memo: dict[int, Any] = {}
        # Things that hold others, by id: what each is, so that no other gets its id, and its depth,
        # which is below 0 when the thing is finished
        self.things: list[Any] = []
        self.depths: dict[int, int] = {}

    def run(self) -> Any:
        if (
            self.take(1).tobytes() != pickle.PROTO
            or not 2 <= self.take(1)[0] <= pickle.HIGHEST_PROTOCOL
        ):
            raise CheckpointError("must be a pickle of protocol 2 to 5, got another")
        while (opcode := self.take(1)[0]) != pickle.STOP[0]:
            self.budget.spend(1)
            if opcode not in OPCODES:
                raise CheckpointError(
                    f"must be a pickle of data, got the opcode {bytes([opcode])!r} at byte "
                    f"{self.at - 1:,}"
                )
            OPCODES[opcode](self)
        if len(self.stack) != 1 or self.outer:
            raise CheckpointError("must be a pickle of one value, got one with parts of another")
        return self.stack[0]

    # Bytes of the pickle

    def take(self, count: int) -> memoryview:
        start, self.at = self.at, self.at + count
        if self.at > len(self.data):
            raise CheckpointError(
                f"must be a whole checkpoint, got one whose pickle ends early, at byte {start:,}"
            )
        return self.data[start : self.at]

    def number(self, kind: str) -> Any:
        return struct.unpack(kind, self.take(struct.calcsize(kind)))[0]

    def line(self) -> str:
        text = self.data[self.at : self.at + LONGEST_NAME + 1].tobytes()
        end = text.find(b"\n")
        if end < 0:
            end = len(text)
            if end > LONGEST_NAME:
                raise CheckpointError(f"must have names of at most {LONGEST_NAME} bytes, got more")
        return self.take(end + 1)[:-1].tobytes().decode()

    # What the opcodes do

    def push_number(self, kind: str) -> None:
        self.stack.append(self.number(kind))

    def push_long(self, kind: str) -> None:
        size = self.number(kind)
        self.budget.copy(size)
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def push_text(self, kind: str) -> None:
        size = self.number(kind)
        self.budget.copy(size)
        self.stack.append(str(self.take(size), "utf-8", "surrogatepass"))

    def push_bytes(self, kind: str) -> None:
        self.stack.append(self.take(self.number(kind)))

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def last(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise CheckpointError("must be a whole checkpoint, got a pickle that lacks a value")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def get(self, key: int) -> None:
        self.stack.append(self.memo[key])

    def thing(self, value: Any, contents: Iterable[Any] = ()) -> None:
        """Push what holds ``contents``."""
        self.things.append(value)
        self.depths[id(value)] = self.depth_around(contents)
        self.stack.append(value)

    def depth_around(self, contents: Iterable[Any]) -> int:
        """The depth of what holds ``contents``, which are finished with that."""
        depth = 1
        for value in contents:
            within = self.depths.get(id(value))
            if within is not None:
                within = abs(within)
                self.depths[id(value)] = -within
                depth = max(depth, 1 + within)
        if depth > MOST_DEPTH:
            raise CheckpointError(f"must nest up to {MOST_DEPTH} deep, got more")
        return depth

    def unfinished(self, contents: Iterable[Any]) -> Any:
        """The top of the stack, which is to hold ``contents`` too."""
        depth = self.depth_around(contents)
        value = self.stack[-1]
        before = self.depths.get(id(value), 0)
        if before <= 0:
            raise CheckpointError(f"must leave {shown(value)} as it is, got more to put into it")
        self.depths[id(value)] = max(before, depth)
        return value

    def extend(self, items: list[Any]) -> None:
        value = self.unfinished(items)
        if type(value) is not list:
            raise CheckpointError(f"must leave {shown(value)} as it is, got items to append")
        value += items

    def set_items(self, items: list[Any]) -> None:
        value = self.unfinished(items)
        if type(value) is not dict:
            raise CheckpointError(f"must leave {shown(value)} as it is, got items to set")
        for key, item in zip(items[::2], items[1::2], strict=True):
            if type(key) is int and -(2**63) <= key < 2**63:
                self.budget.numbers_as_keys -= 1
                if self.budget.numbers_as_keys < 0:
                    raise CheckpointError(
                        f"must have up to {MOST_NUMBERS_AS_KEYS:,} numbers as keys, got more"
                    )
            elif type(key) is not str:
                raise CheckpointError(
                    f"must have strings and whole numbers as keys, got {shown(key)}"
                )
            value[key] = item

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise CheckpointError(f"must name what it asks for, got {shown((module, name))}")
        known = f"{RENAMED.get(module, module)}.{name}"
        if known not in NAMES:
            raise refused(f"{module}.{name}"[: 2 * LONGEST_NAME])
        self.stack.append(Record(known))

    def call(self) -> None:
        called, args = self.last(2)
        if type(called) is not Record or called.args is not None or type(args) is not tuple:
            raise CheckpointError(
                f"must call what it names, with a tuple, got {shown(called)} with {shown(args)}"
            )
        # A dict may be called with the class of its default values, but with no items
        if called.name in DICTS and all(_is_class(arg) for arg in args):
            self.thing({})
        else:
            self.thing(Record(called.name, args), (args,))

    def build(self) -> None:
        """The state of a dict, which are attributes such as ``_metadata``, is left out."""
        (state,) = self.last(1)
        value = self.unfinished((state,))
        if type(value) is Record and value.name in WITH_STATE and value.state is None:
            value.state = state
        elif type(value) is not dict:
            raise CheckpointError(f"must leave {shown(value)} as it is, got {shown(state)} to set")

    def refer(self) -> None:
        (reference,) = self.last(1)
        self.stack.append(self.persistent(reference))

    def tuple_of(self, items: list[Any]) -> None:
        self.thing(tuple(items), items)


def _is_class(value: Any) -> bool:
    return type(value) is Record and value.args is None


_Action = Callable[[_Machine], Any]


def _of(method: Callable[..., Any], *args: Any) -> _Action:
    return lambda machine: method(machine, *args)


_U1, _U2, _U4, _U8 = "<B", "<H", "<I", "<Q"
_ACTIONS: dict[bytes, _Action] = {
    pickle.FRAME: _of(_Machine.take, 8),
    pickle.NONE: lambda m: m.stack.append(None),
    pickle.NEWTRUE: lambda m: m.stack.append(True),
    pickle.NEWFALSE: lambda m: m.stack.append(False),
    pickle.BININT: _of(_Machine.push_number, "<i"),
    pickle.BININT1: _of(_Machine.push_number, _U1),
    pickle.BININT2: _of(_Machine.push_number, _U2),
    pickle.BINFLOAT: _of(_Machine.push_number, ">d"),
    pickle.LONG1: _of(_Machine.push_long, _U1),
    pickle.LONG4: _of(_Machine.push_long, _U4),
    pickle.SHORT_BINUNICODE: _of(_Machine.push_text, _U1),
    pickle.BINUNICODE: _of(_Machine.push_text, _U4),
    pickle.BINUNICODE8: _of(_Machine.push_text, _U8),
    pickle.SHORT_BINSTRING: _of(_Machine.push_text, _U1),  # of Python 2
    pickle.BINSTRING: _of(_Machine.push_text, _U4),
    pickle.SHORT_BINBYTES: _of(_Machine.push_bytes, _U1),
    pickle.BINBYTES: _of(_Machine.push_bytes, _U4),
    pickle.BINBYTES8: _of(_Machine.push_bytes, _U8),
    pickle.BYTEARRAY8: _of(_Machine.push_bytes, _U8),
    pickle.MARK: _Machine.mark,
    pickle.EMPTY_TUPLE: lambda m: m.stack.append(()),
    pickle.TUPLE1: lambda m: m.tuple_of(m.last(1)),
    pickle.TUPLE2: lambda m: m.tuple_of(m.last(2)),
    pickle.TUPLE3: lambda m: m.tuple_of(m.last(3)),
    pickle.TUPLE: lambda m: m.tuple_of(m.since_mark()),
    pickle.EMPTY_LIST: lambda m: m.thing([]),
    pickle.APPEND: lambda m: m.extend(m.last(1)),
    pickle.APPENDS: lambda m: m.extend(m.since_mark()),
    pickle.EMPTY_SET: lambda m: m.thing([]),
    pickle.ADDITEMS: lambda m: m.extend(m.since_mark()),
    pickle.FROZENSET: lambda m: m.thing(items := m.since_mark(), items),
    pickle.EMPTY_DICT: lambda m: m.thing({}),
    pickle.SETITEM: lambda m: m.set_items(m.last(2)),
    pickle.SETITEMS: lambda m: m.set_items(m.since_mark()),
    pickle.BINPUT: lambda m: m.put(m.number(_U1)),
    pickle.LONG_BINPUT: lambda m: m.put(m.number(_U4)),
    pickle.MEMOIZE: lambda m: m.put(len(m.memo)),
    pickle.BINGET: lambda m: m.get(m.number(_U1)),
    pickle.LONG_BINGET: lambda m: m.get(m.number(_U4)),
    pickle.GLOBAL: lambda m: m.name(m.line(), m.line()),
    pickle.STACK_GLOBAL: lambda m: m.name(*m.last(2)),
    pickle.REDUCE: _Machine.call,
    pickle.NEWOBJ: _Machine.call,
    pickle.BUILD: _Machine.build,
    pickle.BINPERSID: _Machine.refer,
}
OPCODES = {opcode[0]: action for opcode, action in _ACTIONS.items()}
