# SPDX-License-Identifier: BSD-3-Clause
"""Numbers that a user gives, and values as a sentence shows them. Imports no torch."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any


def shown(value: Any, longest: int = 100) -> str:
    """The value as Python writes it, for an error that must stay one sentence.

    Where that is long, the beginning of a number or of a list; else the name of the type.
    """
    try:
        text = repr(value)
    except Exception:  # of an int of very many digits, or of an object with a fault of its own
        return type(value).__name__
    if len(text) > longest and text.isprintable() and isinstance(value, (Real, list, tuple)):
        return f"{text[:longest]}..."
    return text if len(text) <= longest and text.isprintable() else type(value).__name__


def to_float(value: Any) -> float:
    """A real number as a float: infinite where it overflows, and nan for what is no real number."""
    if not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # of an int or a fraction
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]  # real numbers do


def as_index(value: Any) -> int | None:
    """An int, or what stands for one, as numpy's integers do; None for all else, a bool too."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    try:
        return operator.index(value)
    except (TypeError, RuntimeError):  # of an array, or a tensor without a value
        return None


def as_count(name: str, value: Any, least: int) -> int:
    """An int >= ``least`` of 32 bits.

    Raises:
        TypeError: for another kind of value.
        ValueError: for another int.
    """
    count = as_index(value)
    if count is None:
        raise TypeError(f"{name} must be an int, got {shown(value)}")
    if count < least:
        raise ValueError(f"{name} must be >= {least}, got {shown(value)}")
    if count >= 2**31:
        raise ValueError(f"{name} must be an int of 32 bits, got {shown(value)}")
    return count


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise a ValueError for what is none of these words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {shown(value)}")


def check_bool(name: str, value: Any) -> None:
    """Raise a TypeError for what is no bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {name}={shown(value)}")


def check_finite(name: str, value: Any) -> None:
    """Raise a TypeError for what is no real number, a ValueError for one that is not finite."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {name}={shown(value)}")
    if not -math.inf < to_float(value) < math.inf:
        raise ValueError(f"{name} must be finite, got {name}={shown(value)}")
