# SPDX-License-Identifier: BSD-3-Clause
"""What reading a file can go wrong with: its error, and rules for what a file says."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch


class CheckpointError(ValueError):
    """The file is no checkpoint that can be read, or must not be."""


@contextlib.contextmanager
def naming(path: str | Path, ours: type[ValueError]) -> Iterator[None]:
    """Errors name the file; a damaged one may raise anything, besides what is ``ours``."""
    try:
        yield
    except ours as error:
        raise CheckpointError(f"{path} {printable(str(error))}") from None
    except Exception as error:
        reason = printable(f"{type(error).__name__} {error}")[:300]
        raise CheckpointError(f"{path} must be a whole checkpoint, got {reason}") from error


def printable(text: str) -> str:
    """Text with names from a file, without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Short(reprlib.Repr):
    """Values as text of a bounded length, whatever a file makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, 60, 60

    def repr_int(self, value: int, level: int) -> str:
        bits = value.bit_length()
        return f"a number of {bits} bits" if bits > 200 else super().repr_int(value, level)

    def repr_memoryview(self, value: memoryview, level: int) -> str:
        return repr(value[: self.maxstring].tobytes())


shown = _Short().repr


MOST_NAMES = 100  # in one error
LONGEST = 100  # characters of each


def listed(names: Iterable[str]) -> str:
    """Names from a file as text of a bounded length."""
    names = list(names)
    some = [name if len(name) <= LONGEST else shown(name) for name in names[:MOST_NAMES]]
    more = len(names) - len(some)
    return ", ".join(some) + (f" and {more:,} more" if more else "")


class Rule(NamedTuple):
    """What a value in a file must be, in words and as a test that takes any value."""

    text: str
    holds: Callable[[Any], bool]


def exactly(wanted: Any) -> Rule:
    return Rule(repr(wanted), lambda value: type(value) is type(wanted) and value == wanted)


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= torch.finfo(torch.float32).max


COUNT = Rule("a whole number >= 1", lambda value: type(value) is int and value >= 1)
POSITIVE = Rule("a finite number > 0", lambda value: _finite(value) and value > 0)
CLAMP = Rule(
    "None or a finite number >= 0", lambda value: value is None or (_finite(value) and value >= 0)
)


def check(name: str, rule: Rule, value: Any, where: str) -> Any:
    """``value``, if the rule holds.

    Raises:
        CheckpointError: naming the attribute, the rule and the value, but not the file.
    """
    if not rule.holds(value):
        raise CheckpointError(f"must have {name} {rule.text} in {where}, got {shown(value)}")
    return value
