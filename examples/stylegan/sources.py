# SPDX-License-Identifier: BSD-3-Clause
"""Where the files of images lie, a folder or a zip archive, and which of them are taken."""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

from .decode import EXTENSIONS, ImageError

# What other programs put beside images; names that begin with a dot are hidden too
HIDDEN = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN")
LABELS = "dataset.json"  # the classes of images, where NVIDIA's dataset_tool.py writes them
# A sentence names so many types of files, and so many files, and counts the others
MOST_TYPES = 8
MOST_NAMED = 3
LONGEST_EXTENSION = 10
LARGEST_MEMBER = 256 << 20  # bytes of a file in an archive, which is read into memory


class Folder:
    """A folder, the folders in it, and those that links lead to."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def walk(self, skipped: Counter[str]) -> Iterator[str]:
        """The names of all files, relative to the folder, with ``/`` between their parts.

        Hidden files and folders, links to nowhere and what is no regular file are counted in
        ``skipped``. Each folder is read once, however many links lead to it, so that a link to a
        folder above it makes no loop. Links are followed last, so that a folder is read by its own
        name where it has one.

        Raises:
            OSError: if the folder itself cannot be read.
        """
        folders, links, seen = [""], deque[str](), set[tuple[int, int]]()
        while folders or links:
            folder = folders.pop() if folders else links.popleft()
            path = os.path.join(self.path, folder)
            try:
                status = os.stat(path)
                if (status.st_dev, status.st_ino) in seen:
                    skipped["links to folders that are read already"] += 1
                    continue
                seen.add((status.st_dev, status.st_ino))
                with os.scandir(path) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError as error:
                if not folder:
                    raise
                skipped[f"folders that cannot be read ({error.strerror})"] += 1
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if is_hidden(entry.name):
                    skipped["hidden"] += 1
                    continue
                kind = _kind(entry)
                if kind == "folder":
                    (links if entry.is_symlink() else folders).append(name)
                elif kind == "file":
                    yield name
                else:
                    skipped[kind] += 1

    def open(self, name: str) -> BinaryIO:
        return open(os.path.join(self.path, name), "rb")


def _kind(entry: os.DirEntry[str]) -> str:
    """``file``, ``folder``, or why it is neither."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        os.stat(entry.path)
    except OSError:  # a link to nowhere, to itself, or into a folder that is closed to us
        return "broken links"
    return "pipes, sockets or devices"


class Archive:
    """A zip archive; nothing in it is written to the disk, so its names are no paths.

    Raises:
        ValueError: if the file is no zip archive, or a damaged one.
        OSError: if the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._zip: zipfile.ZipFile | None = None
        self._process = 0
        try:
            self._open()
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise ValueError(
                "the images must lie in a folder or a whole zip archive, got the file "
                f"{self.path!r}: {error}"
            ) from error

    def _open(self) -> zipfile.ZipFile:
        """The archive, opened by this process: processes that share a file share its position."""
        if self._zip is None or self._process != os.getpid():
            self._zip, self._process = zipfile.ZipFile(self.path), os.getpid()
        return self._zip

    def __getstate__(self) -> dict[str, object]:  # for a process that is not forked
        return {"path": self.path, "_zip": None, "_process": 0}

    def walk(self, skipped: Counter[str]) -> Iterator[str]:
        """The names of all files; what is hidden, and links, are counted in ``skipped``."""
        archive, hidden = self._open(), set[str]()
        for name in dict.fromkeys(archive.namelist()):
            parts = name.split("/")
            depth = next((i for i, part in enumerate(parts) if is_hidden(part)), None)
            if depth is not None:  # a folder is counted once, as it is on a disk
                hidden.add("/".join(parts[: depth + 1]))
            elif stat.S_ISLNK(archive.getinfo(name).external_attr >> 16):
                skipped["links in the archive"] += 1
            elif parts[-1]:
                yield name
        if hidden:
            skipped["hidden"] += len(hidden)

    def open(self, name: str) -> BinaryIO:
        """A file in memory: as many bytes of it as the archive says that it has.

        Where it unpacks to more, a file that is stored or deflated is unpacked no further. One that
        is compressed by BZIP2 or LZMA is: zipfile sets no limit to those.

        Raises:
            ImageError: if it is larger than ``LARGEST_MEMBER``.
            Exception: of any kind, by zipfile and its decoders, if it is damaged.
        """
        archive = self._open()
        size = archive.getinfo(name).file_size
        if size > LARGEST_MEMBER:
            raise ImageError(
                f"a file in a zip archive must have at most {LARGEST_MEMBER:,} bytes, got {size:,}"
            )
        with archive.open(name) as member:
            return io.BytesIO(member.read(size))


Source = Folder | Archive


def is_hidden(name: str) -> bool:
    """Whether a part of a path is one that programs hide or write for themselves."""
    return name in HIDDEN or (name.startswith(".") and name not in (".", ".."))


@dataclass(frozen=True)
class Found:
    """The images of a source, and what else is there."""

    source: Source
    names: tuple[str, ...]  # in order, part by part
    skipped: Counter[str]  # how many, by reason
    labels: bool  # whether there is a file of classes

    def describe(self, broken: Sequence[str] = ()) -> str:
        """What was taken and what was skipped, and why, in one line.

        Args:
            broken: which of the images cannot be decoded, and why.
        """
        folders = {name.rpartition("/")[0] for name in self.names}
        words = [f"{len(self.names) - len(broken):,} images taken"]
        if len(folders) > 1:
            words[0] += f" from {len(folders):,} folders, which are not taken for classes"
        skipped = Counter(self.skipped)
        if broken:
            skipped[f"unreadable images ({name_some(broken)})"] = len(broken)
        if skipped:
            words.append("skipped: " + _list(skipped))
        if self.labels:
            words.append(f"the classes in {LABELS} are not used")
        return "; ".join(words)


def name_some(sentences: Sequence[str]) -> str:
    """The first of many sentences, and how many more there are."""
    more = len(sentences) - MOST_NAMED
    return "; ".join(sentences[:MOST_NAMED]) + (f"; {more:,} more" if more > 0 else "")


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())


def find_images(path: str | os.PathLike[str]) -> Found:
    """The files with an image's extension in a folder or a zip archive.

    Raises:
        FileNotFoundError: if there is nothing at the path.
        OSError: if it cannot be read.
        ValueError: if it is neither a folder nor a zip archive, or a damaged archive.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"the folder of images must exist, got {path!r}")
    if not (os.path.isdir(path) or os.path.isfile(path)):
        raise ValueError(f"the images must lie in a folder or a zip archive, got {path!r}")
    try:
        return _search(Folder(path) if os.path.isdir(path) else Archive(path))
    except OSError as error:
        raise OSError(f"the images must be readable, got {path!r}: {error.strerror}") from error


def _search(source: Source) -> Found:
    skipped, types = Counter[str](), Counter[str]()
    names, labels = [], False
    for name in source.walk(skipped):
        extension = os.path.splitext(name)[1].lower()
        if extension in EXTENSIONS:
            names.append(name)
        elif name == LABELS:
            labels = _has_labels(source)
        else:
            # A dot with more letters behind it is part of a sentence, and begins no extension
            known = len(extension) <= LONGEST_EXTENSION
            types[(ascii(extension)[1:-1] if known else "") or "no extension"] += 1
    if types:
        named = Counter(dict(types.most_common(MOST_TYPES)))
        rest = len(types) - len(named)
        more = f" and {rest} types more" if rest else ""
        skipped[f"other types ({_list(named)}{more})"] = types.total()
    return Found(source, tuple(sorted(names, key=PurePath)), skipped, labels)


def _has_labels(source: Source) -> bool:
    """Whether the source's file of classes holds any: NVIDIA's tool writes null for none."""
    try:
        with source.open(LABELS) as file:
            content = json.load(file)
    except MemoryError:  # which is no fault of the file
        raise
    except Exception:  # zipfile and its decoders raise many kinds; the training needs no classes
        return False
    return isinstance(content, dict) and bool(content.get("labels"))
