# SPDX-License-Identifier: BSD-3-Clause
"""Files that are written whole or not at all, folders that are known to take them, and output."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
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
    with _removing_temporaries(path), _naming(path):
        with open(temporary(path), "w+b") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary(path), path)
        if durable:
            sync_folder(path.parent)


def write_pair(
    path: Path,
    write: Callable[[BinaryIO], None],
    second_path: Path,
    write_second: Callable[[BinaryIO], None],
) -> None:
    """Write two files that belong together; both are on the disk before one takes its place.

    The second takes its place first. If the process is killed between the two, the file at
    ``path`` is of the earlier pair: :func:`find_half_replaced` sees that.

    Raises:
        OSError: with ``filename`` set to the path, if a file cannot be written; both are as they
            were. If only the second can take its place, the error says how to finish.
    """
    with _removing_temporaries(path, second_path):
        for place, writer in ((path, write), (second_path, write_second)):
            with _naming(place):
                if place.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                with open(temporary(place), "w+b") as file:
                    writer(file)
                    file.flush()
                    os.fsync(file.fileno())
        with _naming(second_path):
            os.replace(temporary(second_path), second_path)
    # From here on the first one's temporary file is kept until it has taken its place
    sync_folder(second_path.parent)
    try:
        os.replace(temporary(path), path)
    except OSError as error:
        said = f"{error.strerror}; {explain_half_replaced(path, second_path)}"
        raise OSError(error.errno, said, str(path)) from error
    sync_folder(path.parent)


def find_half_replaced(path: Path, second_path: Path) -> bool:
    """Whether :func:`write_pair` was killed after the second file and before the first.

    Then the first one's temporary file is alone, and was written before the second file was.
    """
    with contextlib.suppress(FileNotFoundError):
        written = os.stat(temporary(path)).st_mtime_ns
        return not temporary(second_path).exists() and written <= os.stat(second_path).st_mtime_ns
    return False


def explain_half_replaced(path: Path, second_path: Path) -> str:
    """What is wrong with such a pair and what mends it, in words without a full stop."""
    command = shlex.join(["mv", str(temporary(path)), str(path)])
    return (
        f"of a pair that was saved together only {second_path} took its place: finish with: "
        f"{command}"
    )


def temporary(path: Path) -> Path:
    """The name of a file while it is written."""
    return path.with_name(f"{path.name}.tmp")


@contextlib.contextmanager
def _removing_temporaries(*paths: Path) -> Iterator[None]:
    """If the body fails, remove the temporary files."""
    try:
        yield
    except BaseException:
        for path in paths:
            with contextlib.suppress(OSError):
                temporary(path).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the system name ``path``."""
    try:
        yield
    except Exception as error:
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
