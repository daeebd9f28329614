# SPDX-License-Identifier: BSD-3-Clause
"""Replace a vendored copy of the op: ``python -m resample_layers.compat.migrate rosinality``.

The command reads every Python file under a folder, by default the current one. It points the
imports of the copy, absolute and relative ones, to :mod:`resample_layers.compat`, and deletes the
copy. It changes nothing where code would be left that needs what is deleted, or where git does not
keep the old state of a file. ``docs/migrating.md`` says what to run where.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from .migration.changes import WORK, HalfDoneError
from .migration.copies import CODES, COMPAT
from .migration.search import Migration

__all__ = ["WORK", "main"]


def _print(file: TextIO, *lines: str) -> None:
    """Print what the encoding of a terminal lacks, too."""
    text = "".join(f"{line}\n" for line in lines)
    encoding = file.encoding or "utf-8"
    file.write(text.encode(encoding, "backslashreplace").decode(encoding))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {COMPAT}.migrate",
        description="Import resample_layers.compat instead of a copy of the op; delete the copy.",
    )
    parser.add_argument("code", choices=CODES, help="where the copy comes from")
    parser.add_argument("folder", nargs="?", default=".", type=Path, help="default: this one")
    parser.add_argument("--dry-run", action="store_true", help="only print what would change")
    parser.add_argument("--force", action="store_true", help="change what git does not keep, too")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        parser.error(f"folder must be a folder, got {str(given.folder)!r}")
    migration = Migration(given.code, given.folder.resolve())
    by_hand = [f"by hand: {sentence}" for sentence in migration.by_hand]
    problems = migration.problems
    if not problems and not migration.edited:
        names = " or ".join(copied.package for copied in CODES[given.code])
        nothing = f"nothing imports a copy of {names}: nothing was changed"
        _print(sys.stdout, *by_hand, nothing)
        return 0
    changes = migration.changes
    if not problems and (lost := list(changes.check_git())) and not given.force:
        problems = [*lost, "commit what git shall keep, or give --force to change it all the same"]
    told = [*migration.log, *(f"{migration.name(path)}: deleted" for path in migration.removed)]
    told += by_hand
    if migration.removed:
        told.append("note: only names were compared, no formulas: compare results before and after")
    if migration.removed and changes.within:
        told.append(
            f"note: files outside of {changes.within} were not read: others of this repository may "
            "import what is deleted"
        )
    if given.dry_run:
        _print(sys.stdout, *told, "nothing was changed: this is a dry run")
    if problems:
        _print(sys.stderr, "Nothing was changed, because of:", *problems)
    if given.dry_run or problems:
        return int(bool(problems))
    try:
        changes.make()
    except OSError as error:
        half = isinstance(error, HalfDoneError)
        what = "The change stopped half-way" if half else "Nothing was changed"
        _print(sys.stderr, f"{what}, because of:", str(error))
        return 1
    git = ["git", "--literal-pathspecs", "-C", str(migration.root)]  # ":b.py" is a file's name
    git += ["checkout", "HEAD", "--", *changes.kept]
    undo = [f"undo it with: {shlex.join(git)}"] if changes.kept else []
    _print(sys.stdout, *told, *undo)
    return 0


if __name__ == "__main__":
    sys.exit(main())
