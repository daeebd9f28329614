# SPDX-License-Identifier: BSD-3-Clause
"""Files that are written whole or not at all, folders that are known to take them, and output."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def writable(folder: Path, names: Iterable[str], option: str = "--out") -> Iterator[None]:
    """Make a folder, and make sure that files of these names can be written in it.

    If the body fails, the folders that were made are removed again.

    Raises:
        OSError: if the files cannot be written; the sentence begins with ``option``.
    """
    made: list[Path] = []
    try:
        try:
            for path in (*reversed(folder.parents), folder):
                if not path.exists():
                    path.mkdir(exist_ok=True)  # another command may have made it meanwhile
                    made.append(path)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"0")  # a full disk still takes empty files
        except (OSError, ValueError) as error:  # ValueError: a name with a null byte
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise OSError(
                f"{option} must be a folder that can be written to, got {str(folder)!r}: {reason}"
            ) from error
        for name in names:
            if (folder / name).is_dir():
                raise OSError(
                    f"{option} must have no folder where a file is to be written, got "
                    f"{str(folder / name)!r}"
                )
        yield
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # it is not empty: others use it
                path.rmdir()
        raise


@contextlib.contextmanager
def whole(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a file to write, which replaces the one at ``path`` when the body has ended.

    Until then it has another name in the same folder. If the body fails, it is removed, and the
    file at ``path`` stays as it was.

    Args:
        path: where the file is to be.
        durable: wait until the file and its name are on the disk.

    Raises:
        OSError: with ``filename`` set to ``path``, if it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "w+b") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # torch.save hides a failed write behind a RuntimeError about its position in the file
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror or str(cause), str(path)) from error
        raise


def append(path: Path, text: str) -> None:
    """Write at the end of a file.

    Raises:
        OSError: with ``filename`` set to ``path``, if it cannot be written.
    """
    try:
        with open(path, "a") as file:
            file.write(text)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def say(text: str) -> None:
    """Print a line at once; characters that the encoding of the output lacks are escaped.

    Standard error needs no such function: Python escapes them there.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def explain_write(error: OSError) -> str:
    """What a failure of :func:`whole` means, in words without a full stop."""
    reason = error.strerror or str(error)
    return f"{error.filename} could not be written: {reason}" if error.filename else reason
