# SPDX-License-Identifier: BSD-3-Clause
"""The command line that the commands of this folder share."""

from __future__ import annotations

import argparse
from typing import NoReturn

from .checkpoints import Checkpoint, load


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage, which is long, is for ``--help``."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")

    def fail(self, message: str) -> NoReturn:
        """Say in one line what has failed that no other option would mend."""
        self.exit(2, f"{self.prog}: error: {message}\n")


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
