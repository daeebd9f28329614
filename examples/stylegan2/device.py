# SPDX-License-Identifier: BSD-3-Clause
"""Where to run."""

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
