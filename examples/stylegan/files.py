# SPDX-License-Identifier: BSD-3-Clause
"""Files that are written whole or not at all, folders that take them, locks, and output."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None


class OutputError(Exception):
    """Standard output takes no more text."""


UNFINISHED = r"(\.[0-9a-f]{16})?\.tmp"
"""What stands behind a file's name while it is written: see :func:`_own_name`."""


class NoLockError(OSError):
    """The system, or the file system, has no locks."""


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
            if isinstance(error, FileExistsError) and path.is_symlink():
                reason = f"{path} is a link to nowhere"
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

    Until then it has another name in the same folder, which no other process writes to: where
    several write ``path`` at once, it is the whole file of the one that ends last. If the body
    fails, its file is removed, and the one at ``path`` stays as it was.

    Args:
        path: where the file is to be.
        durable: wait until the file and its name are on the disk.

    Raises:
        OSError: with ``filename`` set to ``path``, if it cannot be written.
    """
    with _naming(path):
        with _own_name(path) as name:
            with open(name, "w+b") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(name, path)
        if durable:
            sync_folder(path.parent)


def write_pair(
    path: Path,
    write: Callable[[BinaryIO], None],
    second_path: Path,
    write_second: Callable[[BinaryIO], None],
) -> None:
    """Write two files that belong together, so that no two of different saves are taken for a pair.

    Both are written whole first. Then each gets a name that only a whole file ever has,
    :func:`waiting_second` before :func:`waiting`; then the second takes its place, and the first
    does. Each of these moves is on the disk before the next. So the pair is half replaced where
    the first file waits and the second does not: :func:`find_half_replaced` sees that, and the
    next call finishes that pair before it writes. One process at a time may write a pair.

    Args:
        path: where the first file is to be.
        write: writes it.
        second_path: where the second file is to be; see :func:`collide`.
        write_second: writes it.

    Raises:
        OSError: with ``filename`` set to the path, if a file cannot be written; both are as they
            were. If only the second has taken its place, the error says how to finish. If both
            have and the disk does not confirm it, both are new.
    """
    first_waits, second_waits = waiting(path), waiting_second(second_path)
    try:
        with _own_name(path) as name, _own_name(second_path) as second_name:
            if find_half_replaced(path, second_path):
                with _naming(path):
                    _move(first_waits, path)
            for place, own, writer in (
                (path, name, write),
                (second_path, second_name, write_second),
            ):
                with _naming(place):
                    if place.is_dir():
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                    with open(own, "w+b") as file:
                        writer(file)
                        file.flush()
                        os.fsync(file.fileno())
            for place, source, target in (
                (second_path, second_name, second_waits),
                (path, name, first_waits),
                (second_path, second_waits, second_path),
                (path, first_waits, path),
            ):
                with _naming(place):
                    _move(source, target)
    except BaseException as error:
        half = True  # where the system does not say, nothing more is removed
        with contextlib.suppress(OSError):
            half = find_half_replaced(path, second_path)
            if not half:  # the second file waits until the first one's is gone from the disk
                first_waits.unlink(missing_ok=True)
                sync_folder(path.parent)
                second_waits.unlink(missing_ok=True)
        if half and isinstance(error, OSError):
            said = f"{error.strerror}; {explain_half_replaced(path, second_path)}"
            raise OSError(error.errno, said, error.filename) from error
        raise


def find_half_replaced(path: Path, second_path: Path) -> bool:
    """Whether :func:`write_pair` ended after the second file took its place, before the first.

    Raises:
        OSError: if the system does not say which files exist.
    """
    return (
        _exists(waiting(path)) and _exists(second_path) and not _exists(waiting_second(second_path))
    )


def explain_half_replaced(path: Path, second_path: Path) -> str:
    """What is wrong with such a pair and what mends it, in words without a full stop."""
    command = shlex.join(["mv", str(waiting(path)), str(path)])
    return (
        f"of a pair that was saved together only {second_path} took its place: finish with: "
        f"{command}"
    )


def collide(path: Path, second_path: Path) -> bool:
    """Whether :func:`write_pair` would write two of its files under one name."""
    names = (path, temporary(path), waiting(path))
    names += (second_path, temporary(second_path), waiting_second(second_path))
    places = {name.parent.resolve() / name.name for name in names}
    return len(places) < len(names) or path.resolve() == second_path.resolve()


def temporary(path: Path) -> Path:
    """The name of a file while it is written, unless that name is taken."""
    return path.with_name(f"{path.name}.tmp")


def left_over(path: Path) -> list[Path]:
    """The files that processes left which were killed while they wrote ``path``.

    Files that other processes still write are among them.
    """
    names = re.compile(re.escape(path.name) + UNFINISHED)
    return [
        found
        for found in path.parent.iterdir()
        if names.fullmatch(found.name) and (found.is_symlink() or not found.is_dir())
    ]


@contextlib.contextmanager
def _own_name(path: Path) -> Iterator[Path]:
    """A name in the folder of ``path`` that no other process writes to; removed if the body fails.

    It is :func:`temporary`, which is locked until the body has ended, so that the next write takes
    over what a killed process left. Where that name cannot be locked, it is a random one.
    """
    name = temporary(path)
    with contextlib.ExitStack() as stack:
        try:
            mine = stack.enter_context(locked(name))
        except OSError:  # there are no locks, or no file can have this name
            mine = False
        if not mine:
            name = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            yield name
        except BaseException:
            _remove(name)
            raise


@contextlib.contextmanager
def locked(path: Path, of_process: bool = False) -> Iterator[bool]:
    """Lock a file until the body has ended, and say whether that was possible.

    It was not where another process has locked the file. The file is made where there is none; the
    body may move or remove it. However a process ends, the system ends its locks.

    Args:
        path: the file, which is not to be a link.
        of_process: the lock ends with this process, and not only when the processes that were
            forked from it have ended too. The same process may take such a lock twice, and has
            none when it ends one of the two.

    Raises:
        NoLockError: if the system or the file system has no locks; no file is left then.
        OSError: if the file cannot be opened to write.
    """
    if fcntl is None:
        raise NoLockError(errno.ENOSYS, "this system has no locks of fcntl")
    lock = fcntl.lockf if of_process else fcntl.flock
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            free = True
            try:
                lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    _remove(path)
                    raise NoLockError(error.errno, error.strerror) from error
                free = False
            if not free or _is_at(path, descriptor):
                yield free
                return
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still has this name: its last user may have moved or removed it."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def waiting(path: Path) -> Path:
    """The name of a pair's first file while it is whole and waits to take its place."""
    return path.with_name(f"{path.name}.pair")


def waiting_second(path: Path) -> Path:
    """The name of a pair's second file while it is whole and waits to take its place.

    It differs from :func:`waiting`, whose file a later save of ``path`` alone removes: without the
    second file that waits, its pair would look half replaced.
    """
    return path.with_name(f"{path.name}.pair2")


def _move(source: Path, target: Path) -> None:
    """Rename a file, and wait until that is on the disk."""
    os.replace(source, target)
    sync_folder(target.parent)


def _exists(path: Path) -> bool:
    """Whether there is such a name; ``Path.exists`` hides errors in some versions of Python."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _remove(path: Path) -> None:
    """Remove a file, where that is possible."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


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

    Raises:
        OutputError: if standard output takes no more text.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        raise OutputError(f"standard output could not be written: {error.strerror}") from error


def explain_write(error: OSError) -> str:
    """What a failure of :func:`whole` means, in words without a full stop."""
    reason = error.strerror or str(error)
    return f"{error.filename} could not be written: {reason}" if error.filename else reason
