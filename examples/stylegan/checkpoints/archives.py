# SPDX-License-Identifier: BSD-3-Clause
"""The three kinds of file around a pickle, and the bytes of the storages that it refers to.

``torch.save`` writes a zip archive; before torch 1.6, or when told so, a stream of five pickles
with the storages behind them, which NVIDIA's pickles also have inside, one for each tensor.

Of an archive there must be one reading: its central directory is the last thing in it, says where
each record is, and leaves no room for another record between them.
"""

from __future__ import annotations

import io
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from .checks import CheckpointError, shown
from .pickles import STORAGES, Budget, Record, read_pickle, refused

MAGIC = 0x1950A86A20F9469CFC6C  # the value of the first pickle of torch's old format
PROTOCOL = 1001  # the value of its second pickle
MOST_DIRECTORY = 2**20  # bytes of an archive's list of records: 10,000 of torch's
FLAGS = 0x808  # of a record that may be set: a descriptor follows it, its name is in UTF-8
DESCRIPTOR = 24  # bytes at most that may follow a record, with its sizes
OTHER_FILES = {  # by how they start
    b"<": "a web page, perhaps of a download that failed",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with git lfs pull",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a file compressed with gzip: unpack it first",
}


class Storage:
    """Numbers that tensors look at: the type that they are stored as, how many, their bytes."""

    __slots__ = ("count", "data", "dtype")

    def __init__(self, dtype: torch.dtype, count: int) -> None:
        self.dtype, self.count = dtype, count
        self.data = memoryview(b"")

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"<storage of {self.count} {self.dtype}>"


def parse(data: bytes, budget: Budget) -> Any:
    """What the pickle of a file holds, as :mod:`.pickles` builds it, with :class:`Storage`."""
    if data.startswith(b"PK\x03\x04"):
        return _read_archive(data, budget)
    if data.startswith(pickle.PROTO):
        return read_stream(memoryview(data), budget)
    for start, kind in OTHER_FILES.items():
        if data.startswith(start):
            raise CheckpointError(f"must be a checkpoint, got {kind}")
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        raise CheckpointError(
            "must be a file of torch.save's or a pickle of NVIDIA's, got one of safetensors: read "
            "it with safetensors.torch.load_file, and write that with torch.save"
        )
    raise CheckpointError(f"must be a whole checkpoint, got a file that starts with {data[:12]!r}")


# Pickles one after another


def read_stream(data: memoryview, budget: Budget) -> Any:
    """A pickle of NVIDIA's, or torch's old format."""

    def outside(reference: Any) -> Any:
        raise refused(f"the persistent object {shown(reference)}")

    value, at = read_pickle(data, 0, budget, outside)
    if type(value) is int and value == MAGIC:
        protocol, at = read_pickle(data, at, budget, outside)
        system, at = read_pickle(data, at, budget, outside)
        if protocol != PROTOCOL or type(system) is not dict:
            raise CheckpointError(f"must be of torch's protocol {PROTOCOL}, got {shown(protocol)}")
        if system.get("little_endian") is not True:
            raise CheckpointError("must have numbers with the lowest byte first, got others")
        storages: dict[str, Storage] = {}
        value, at = read_pickle(data, at, budget, _referring_to(storages))
        keys, at = read_pickle(data, at, budget, outside)
        at = _fill(storages, keys, data, at, budget)
    if at != len(data):
        raise CheckpointError(f"must end with its contents, got {len(data) - at:,} bytes more")
    return value


def _fill(
    storages: dict[str, Storage], keys: Any, data: memoryview, at: int, budget: Budget
) -> int:
    """Give storages their bytes, which follow in the order of ``keys``; return where they end."""
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise CheckpointError(f"must have a list of its storages' names, got {shown(keys)}")
    budget.spend(len(keys))
    if len(set(keys)) < len(keys) or set(keys) != storages.keys():
        raise CheckpointError("must hold the storages that it refers to, each once, got others")
    for key in keys:
        storage = storages[key]
        (count,) = struct.unpack("<q", data[at : at + 8])
        at += 8
        storage.data = data[at : at + storage.size]
        if count != storage.count or len(storage.data) < storage.size:
            raise CheckpointError(
                f"must be a whole checkpoint, got {len(storage.data):,} bytes of {count:,} numbers "
                f"for {storage}"
            )
        at += storage.size
    return at


def _referring_to(storages: dict[str, Storage]) -> Callable[[Any], Storage]:
    """What makes a storage of a reference to it, the same for each; they gather in the dict."""

    def refer(reference: Any) -> Storage:
        if type(reference) is not tuple or len(reference) not in (5, 6):
            raise refused(f"the persistent object {shown(reference)}")
        what, kind, key, _, count, *view = reference
        dtype = STORAGES.get(kind.name) if type(kind) is Record and kind.args is None else None
        if what != "storage" or dtype is None or type(key) is not str or view not in ([], [None]):
            raise refused(f"the persistent object {shown(reference)}")
        if type(count) is not int or count < 0:
            raise CheckpointError(f"must have storages of 0 numbers or more, got {shown(count)}")
        storage = storages.setdefault(key, Storage(dtype, count))
        if (storage.dtype, storage.count) != (dtype, count):
            raise CheckpointError(f"must refer to each storage in one way, got two for {storage}")
        return storage

    return refer


# Archives


def _read_archive(data: bytes, budget: Budget) -> Any:
    records = records_of(data)
    tops = {name.partition("/")[0] for name in records}
    if len(tops) != 1:
        raise CheckpointError(f"must be an archive of one folder, got {shown(sorted(tops))}")
    (top,) = tops
    if f"{top}/constants.pkl" in records:
        raise CheckpointError(
            "must hold tensors, got a program of TorchScript: read it with torch.jit.load, and "
            "write its state_dict() with torch.save"
        )
    if f"{top}/data.pkl" not in records:
        raise CheckpointError(f"must be an archive with data.pkl, got {shown(sorted(records))}")
    order = records.get(f"{top}/byteorder", b"little")
    if order != b"little":
        raise CheckpointError("must have numbers with the lowest byte first, got others")
    storages: dict[str, Storage] = {}
    pickled = records[f"{top}/data.pkl"]
    value, end = read_pickle(pickled, 0, budget, _referring_to(storages))
    if end != len(pickled):
        raise CheckpointError(f"must end with its contents, got {len(pickled) - end:,} bytes more")
    for key, storage in storages.items():
        record = records.get(f"{top}/data/{key}", memoryview(b""))
        storage.data = record[: storage.size]
        if len(record) < storage.size:
            raise CheckpointError(
                f"must be a whole checkpoint, got {len(record):,} bytes of {shown(key)}, {storage}"
            )
    return value


def records_of(file: bytes) -> dict[str, memoryview]:
    """The records of an archive by name: bytes that are there as they are, without compression."""
    data = memoryview(file)
    directory, count = _check_end(data)
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    if len(entries) != count:
        raise CheckpointError(f"must have {count} records, as it says, got {len(entries)}")
    records: dict[str, memoryview] = {}
    names: set[str] = set()
    starts = [entry.header_offset for entry in entries]
    for entry, (start, following) in zip(entries, pairwise([*starts, directory]), strict=True):
        name = entry.filename
        _check_entry(entry)
        if name.lower() in names:
            raise CheckpointError(f"must have one record of each name, got {shown(name)} twice")
        names.add(name.lower())
        first = start + _check_header(entry, data[start:following])
        end = first + entry.file_size
        if not end <= following <= end + DESCRIPTOR or (not records and start != 0):
            raise CheckpointError(
                f"must have its records one after another, got {shown(name)} at bytes {start:,} to "
                f"{end:,}, and what follows at {following:,}"
            )
        records[name] = data[first:end]
    return records


def _check_end(data: memoryview) -> tuple[int, int]:
    """Where the central directory starts, and of how many records; it is the last in the file."""
    end = len(data) - 22
    sign, *disks, here, count, size, offset, comment = struct.unpack("<4s4H2IH", data[-22:])
    if sign != b"PK\x05\x06" or comment != 0:
        raise CheckpointError("must be a whole checkpoint, got an archive with another end")
    # Large archives have a second end, and so have all archives of torch's
    if data[end - 20 : end - 16].tobytes() == b"PK\x06\x07":
        _, disk, where, disk_count = struct.unpack("<4sIQI", data[end - 20 : end])
        end -= 76
        sign, _, _, _, *large_disks, large_here, large_count, large_size, large_offset = (
            struct.unpack("<4sQ2H2I4Q", data[end : end + 56])
        )
        disks += [*large_disks, disk, disk_count - 1]
        same = sign == b"PK\x06\x06" and where == end
        same &= here in (large_here, 0xFFFF)
        same &= count in (large_count, 0xFFFF) and size in (large_size, 0xFFFFFFFF)
        if not same or offset not in (large_offset, 0xFFFFFFFF):
            raise CheckpointError("must have one central directory, got two")
        here, count, size, offset = large_here, large_count, large_size, large_offset
    if any(disks) or here != count:
        raise CheckpointError("must be an archive in one file, got a part of one")
    if offset + size != end:
        raise CheckpointError(
            f"must be an archive that ends with its central directory, got that at bytes "
            f"{offset:,} to {offset + size:,} of {len(data):,}"
        )
    if size > MOST_DIRECTORY:
        raise CheckpointError(
            f"must have a central directory of up to {MOST_DIRECTORY:,} bytes, got {size:,}"
        )
    return offset, count


def _check_entry(entry: zipfile.ZipInfo) -> None:
    """Raise for a record that is not plain bytes under a plain name."""
    name = entry.filename
    parts = name.split("/")
    if name != entry.orig_filename or "\\" in name or {"", ".", ".."} & set(parts):
        said = "names of records in one folder"
    elif stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG) or (
        entry.external_attr & stat.FILE_ATTRIBUTE_DIRECTORY  # which torch would leave unread
    ):
        said = "files in its archive, and neither links nor folders"
    elif entry.flag_bits & ~FLAGS or entry.volume:
        said = "plain records, neither encrypted nor split"
    elif entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        said = "records without compression, as torch's are"
    else:
        return
    raise CheckpointError(f"must have {said}, got {shown(entry.orig_filename)}")


def _check_header(entry: zipfile.ZipInfo, data: memoryview) -> int:
    """The length of a record's own header, which must say what the central directory says."""
    (sign, _, flags, method, _, _, _, packed, size, length, extra) = struct.unpack(
        "<4s5H3I2H", data[:30]
    )
    name = data[30 : 30 + length].tobytes().decode("utf-8" if flags & 0x800 else "cp437")
    sizes = {(entry.compress_size, entry.file_size), (0xFFFFFFFF, 0xFFFFFFFF)}
    sizes |= {(0, 0)} if flags & 8 else set()  # which then follow the record
    same = (method, flags & 1) == (entry.compress_type, 0) and (packed, size) in sizes
    if sign != b"PK\x03\x04" or name != entry.orig_filename or not same:
        raise CheckpointError(
            f"must have one name and size for each record, got two for {shown(entry.filename)}"
        )
    return int(30 + length + extra)
