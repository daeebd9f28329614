# SPDX-License-Identifier: BSD-3-Clause
"""The command line that the commands of this folder share."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from .checkpoints import Checkpoint, load
from .files import OutputError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage, which is long, is for ``--help``."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")

    def fail(self, message: str) -> NoReturn:
        """Say in one line what has failed that no other option would mend."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def parse_folder(text: str) -> Path:
    """A folder's name; Python would take an empty one for the working folder."""
    if not text:
        raise argparse.ArgumentTypeError(f"it must be a folder, got {text!r}")
    return Path(text)


Main = Callable[[Sequence[str] | None], int]


def ending_without_output(main: Main) -> Main:
    """A ``main`` that ends with a sentence and status 1 where standard output takes no text."""

    @functools.wraps(main)
    def command(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except OutputError as error:
            print(f"error: {error}", file=sys.stderr)
            # When Python ends, it writes what is still in the buffer, and would fail again
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            return 1

    return command


def load_checkpoint(path: str) -> Checkpoint:
    """What ``--checkpoint`` names.

    Raises:
        ValueError: for a file that cannot be read.
        CheckpointError: for one that is no checkpoint, or is broken.
    """
    try:
        return load(path)
    except OSError as error:
        raise ValueError(
            f"--checkpoint must be a file that can be read, got {path!r}: {error.strerror or error}"
        ) from error
