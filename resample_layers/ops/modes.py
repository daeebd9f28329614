# SPDX-License-Identifier: BSD-3-Clause
"""What torch is doing with a call besides computing it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.autograd import forward_ad

is_tracing: Callable[[], object] = torch._C._get_tracing_state
"""Whether TorchScript or ONNX's older exporter records the call; sizes are tensors then.

It gives the recorder or None. ``torch.jit.is_tracing`` tells the same, and costs twice as much.
"""

_is_transformed: Callable[[], bool] = torch._C._are_functorch_transforms_active


def is_autocast(device: torch.device) -> bool:
    """Whether autocast is enabled for the device; for meta there is none, and torch cannot tell."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def is_differentiated_elsewhere() -> bool:
    """Whether torch.func or forward mode is at work: what differentiates outside of autograd."""
    return _is_transformed() or forward_ad._current_level >= 0
