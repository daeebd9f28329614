# SPDX-License-Identifier: BSD-3-Clause
"""Changing and deleting files: all or nothing, and only what git can give back."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

CODE = (".py", ".pyw")
PREPARED, WORK, DONE = (f".resample_layers_migrate{end}" for end in (".new", "", ".old"))


class HalfDoneError(OSError):
    """Some files are changed and others are not."""


class Changes:
    """What is to be changed and deleted under ``root``."""

    def __init__(
        self,
        root: Path,
        edited: dict[Path, bytes],  # new contents
        removed: list[Path],  # files and folders
        deleted: list[Path],  # the files among them and in them
    ) -> None:
        self.root, self.edited, self.removed, self.deleted = root, edited, removed, deleted
        self.kept: list[str] = []  # what git can give back
        self.within = ""  # the path from the root of the repository to this one

    def check_git(self) -> Iterator[str]:
        """Why git could not give back what is to be changed and deleted; ``kept`` is the rest."""
        commands = (
            ["ls-files", "-v", "-z"],
            ["diff", "--name-only", "--relative", "-z", "HEAD"],
            ["rev-parse", "--show-prefix"],
        )
        try:
            tracked, changed, within = (
                subprocess.run(["git", "-C", self.root, *c], capture_output=True, check=True).stdout
                for c in commands
            )
        except (OSError, subprocess.CalledProcessError) as error:
            said = os.fsdecode(getattr(error, "stderr", b"")).strip() or error
            yield f"git keeps no old state of {self.root}: {said}"
            return
        self.within = os.fsdecode(within).strip()
        # A capital H: git was not told to overlook changes of the file
        kept = {entry[2:] for entry in os.fsdecode(tracked).split("\0") if entry[:2] == "H "}
        different = set(os.fsdecode(changed).split("\0"))
        no_code = [p for p in self.deleted if p not in self.removed and p.suffix not in CODE]
        ignored = self._ignored(map(self._name, no_code))
        for name in map(self._name, [*self.edited, *self.deleted]):
            if name in ignored:  # such as what the loader of a kernel has built
                continue
            if name not in kept:
                yield f"{name}: git does not track it"
            elif name in different:
                yield f"{name}: it differs from the last commit"
            else:
                self.kept.append(name)

    def _ignored(self, names: Iterable[str]) -> set[str]:
        """Which of these files git does not track because it was told so."""
        command = ["git", "-C", str(self.root), "check-ignore", "--stdin", "-z"]
        # With "./" a name such as ":b.so" is that of a file, and no pattern
        given = os.fsencode("".join(f"./{name}\0" for name in names))
        said = subprocess.run(command, input=given, capture_output=True).stdout
        return {name.removeprefix("./") for name in os.fsdecode(said).split("\0")}

    def make(self) -> None:
        """Change and delete all, or nothing.

        All new contents, and copies of the old ones, are written before the first file changes.
        What is deleted is moved away until the rest has succeeded. Ctrl-C after the last change
        does not count, so that the caller reports what is done.

        Raises:
            HalfDoneError: if that fails, and putting the old files back fails too.
            OSError: if that fails; all is as it was before.
        """
        prepared = self.root / PREPARED
        work, done = self.root / WORK, self.root / DONE
        for rest in (prepared, done):  # of a run that was killed, which needs them no more
            if rest.exists():
                shutil.rmtree(rest)
        try:
            for path, content in self.edited.items():
                old, new = (prepared / kind / self._name(path) for kind in ("old", "new"))
                old.parent.mkdir(parents=True, exist_ok=True)
                new.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, old)
                new.write_bytes(content)
                shutil.copymode(path, new)
            for path in self.removed:
                (prepared / "old" / self._name(path)).parent.mkdir(parents=True, exist_ok=True)
            os.rename(prepared, work)
            for path in self.edited:
                os.replace(work / "new" / self._name(path), path)
            for path in self.removed:
                os.replace(path, work / "old" / self._name(path))
            os.rename(work, done)
        except BaseException:  # Ctrl-C, too: which folder there is tells how far it went
            if not done.exists():
                if work.exists():
                    self._undo(work)
                shutil.rmtree(prepared, ignore_errors=True)
                raise
        for _ in range(2):  # the second removal takes what Ctrl-C has left of the first
            with contextlib.suppress(KeyboardInterrupt):
                shutil.rmtree(done, ignore_errors=True)

    def _undo(self, work: Path) -> None:
        """Put the old files back, and remove the folder of work."""
        try:
            _put_back(work / "old", self.root)
        except OSError as error:
            raise HalfDoneError(
                f"{error}: {work} keeps what was replaced and deleted; "
                f"{_how_to_put_back(self.root)}"
            ) from error
        shutil.rmtree(work)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def unfinished(root: Path) -> str | None:
    """What an earlier run has left under ``root`` that was killed half-way."""
    work = root / WORK
    if not work.exists():
        return None
    return (
        f"{work}: an earlier run was killed half-way, and keeps there what it had replaced and "
        f"deleted; {_how_to_put_back(root)}"
    )


def _how_to_put_back(root: Path) -> str:
    """What a user is to do where a change stopped half-way."""
    back = shlex.join(["cp", "-a", f"{root / WORK / 'old'}/.", str(root)])
    return f"put it back with: {back}; then remove {WORK}"


def _put_back(old: Path, place: Path) -> None:
    """Move what lies in ``old`` to where it was."""
    for path in old.iterdir():
        target = place / path.name
        if is_folder(path) and os.path.lexists(target):
            _put_back(path, target)
        else:
            os.replace(path, target)


def is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
