# SPDX-License-Identifier: BSD-3-Clause
"""Looks at a library file before the system's loader does, which trusts what it reads.

The loader ends the process (SIGBUS, SIGSEGV) on a file that was cut short or partly overwritten,
and waits for ever on a FIFO. Here the file's kind and its ELF headers are read, no more: a few
kilobytes, whatever the size of the file. Names and numbers are those of the ELF specification
(elf.h): https://gabi.xinuos.com/elf/02-eheader.html
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import torch

MACHINES = {3: "x86", 40: "ARM", 62: "x86-64", 183: "AArch64", 243: "RISC-V"}
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
HEADER = "16sHHIQQQIHHHHHH"  # Elf64_Ehdr
SEGMENT = "IIQQQQQQ"  # Elf64_Phdr
SECTION = "IIQQQQIIQQ"  # Elf64_Shdr
CLASS_64, SHARED_OBJECT = 2, 3  # ELFCLASS64, ET_DYN
LOADED, DYNAMIC = 1, 2  # PT_LOAD, PT_DYNAMIC
NO_BYTES = {0, 8}  # sections of the types SHT_NULL and SHT_NOBITS have no bytes in the file
STRINGS = 3  # SHT_STRTAB


class Format(NamedTuple):
    """What a file is made for: the loader takes one format, that of the process."""

    bits: int  # EI_CLASS
    order: int  # EI_DATA
    machine: int  # e_machine


def find_fault(path: Path) -> str | None:
    """Why the loader must not open a file, such as "it is a FIFO"; None where it may.

    Never raises, and never waits. It finds what headers can tell: damage inside the code itself
    is told by the digest that ``python -m resample_layers.info`` compares.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return f"it is {KINDS.get(stat.S_IFMT(status.st_mode), 'a device')}, and no file"
        with open(path, "rb") as file:
            expected = _format_of_this_process()
            return None if expected is None else _find_elf_fault(file, status.st_size, expected)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except struct.error:
        return "it became shorter while it was read"


def _format_of_this_process() -> Format | None:
    """The format of a library that this process has loaded; None where that is not ELF-64."""
    try:
        with open(torch._C.__file__, "rb") as file:
            found = _read_format(file)
    except OSError:
        return None
    return found if found is not None and found.bits == CLASS_64 else None


def _read_format(file: BinaryIO) -> Format | None:
    """The format of an ELF file; None where the file is no ELF file."""
    start = file.read(20)
    if len(start) < 20 or start[:4] != b"\x7fELF":
        return None
    return Format(start[4], start[5], int.from_bytes(start[18:20], _order(start[5])))


def _order(data: int) -> Literal["little", "big"]:
    return "big" if data == 2 else "little"


def _find_elf_fault(file: BinaryIO, size: int, expected: Format) -> str | None:
    found = _read_format(file)
    if found is None:
        return "it is no ELF file" if size else "it is empty"
    if found != expected:
        return f"it is made for {_say(found)}, and this process is {_say(expected)}"
    order = ">" if expected.order == 2 else "<"
    file.seek(0)
    head = file.read(struct.calcsize(order + HEADER))
    if len(head) < struct.calcsize(order + HEADER):
        return f"it is cut short: {size} bytes do not hold its header"
    header = struct.unpack(order + HEADER, head)
    kind, segments_at, sections_at = header[1], header[5], header[6]
    segment_size, segment_count, section_size, section_count, names = header[9:14]
    if kind != SHARED_OBJECT:
        return "it is no shared library"
    end = max(
        segments_at + segment_size * segment_count, sections_at + section_size * section_count
    )
    if end > size:
        return _cut_short(size, end)
    segments = _read_table(file, order + SEGMENT, segments_at, segment_size, segment_count)
    sections = _read_table(file, order + SECTION, sections_at, section_size, section_count)
    if segments is None or sections is None:
        return "its headers are damaged: a table has entries of another size"
    if not {LOADED, DYNAMIC} <= {segment[0] for segment in segments}:
        return "its headers are damaged: the table of segments names none to load"
    # Without a table of sections a file still loads: strip can remove it
    if sections and (names >= section_count or sections[names][1] != STRINGS):
        return "its headers are damaged: the table of sections does not name its strings"
    ends = [segment[2] + segment[5] for segment in segments]
    ends += [section[4] + section[5] for section in sections if section[1] not in NO_BYTES]
    if max(ends) > size:
        return _cut_short(size, max(ends))
    for segment in segments:
        if segment[0] == DYNAMIC:
            file.seek(segment[2])
            if not any(file.read(segment[5])):
                return "it is damaged: its dynamic section holds zeros alone"
    return None


def _read_table(
    file: BinaryIO, entry: str, offset: int, entry_size: int, count: int
) -> list[tuple[int, ...]] | None:
    """The entries of a table; None where they are not of the size that the format has."""
    if count == 0:
        return []
    if entry_size != struct.calcsize(entry):
        return None
    file.seek(offset)
    return list(struct.iter_unpack(entry, file.read(entry_size * count)))


def _cut_short(size: int, end: int) -> str:
    return f"it is cut short: it has {size} bytes, and its headers tell of {end}"


def _say(format: Format) -> str:
    name = MACHINES.get(format.machine, f"ELF machine {format.machine}")
    return f"{name} ({32 * format.bits} bits, {_order(format.order)}-endian)"
