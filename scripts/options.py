# SPDX-License-Identifier: BSD-3-Clause
"""Types of options for argparse, with which a run that would try nothing is refused."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError


def count(text: str) -> int:
    """A number of things to do."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ArgumentTypeError(f"it must be an int >= 1, got {text!r}")
    return value


def positive(text: str) -> float:
    """A time or an amount of memory; ``nan`` would compare as within every limit."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"it must be finite and > 0, got {text!r}")
    return value
