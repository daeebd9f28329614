# SPDX-License-Identifier: BSD-3-Clause
"""Where to run, and how to know that it has too little memory."""

from __future__ import annotations

import torch


def pick_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is a GPU where there is one.

    Raises:
        ValueError: if torch does not find it here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch's words for no such device, no CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device must be one that torch finds here, got {name!r}: {reason}"
        ) from error
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, CUDA or Python says that memory does not suffice.

    A tensor whose number of bytes overflows 64 bits is such a case too.
    """
    words = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    sizes = ("calculation overflowed", "multiplication overflow")
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(word in str(error) for word in (*words, *sizes))
