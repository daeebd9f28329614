# SPDX-License-Identifier: BSD-3-Clause
"""How an image continues beyond its border: torch's padding modes, of slices and torch.cat.

``F.pad`` would turn half types into float32 under autocast, drop channels_last when circular,
refuse C = 0, and be differentiated with atomic additions on CUDA. The functions here do none of
that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .arguments import SIDES, by, check_input
from .modes import is_autocast, is_tracing
from .native import is_channels_last

MODES = ("reflect", "replicate", "circular")


def extend(
    input: Tensor,  # [N, C, H, W], or with one or three dimensions of space
    border: tuple[int, ...],  # (left, right, top, bottom) [samples], >= 0
    mode: str,  # one of MODES
) -> Tensor:
    """Continue ``input`` to ``[N, C, top + H + bottom, left + W + right]``, as ``F.pad`` does.

    Raises:
        TypeError, ValueError: if the input is at fault, or too small to be continued so.
    """
    if has_torch_function((input,)):
        return handle_torch_function(extend, (input,), input, border, mode)  # type: ignore[no-any-return]
    dims = len(border) // 2
    check_input(input, dims)
    if not is_tracing():
        size = input.shape[2:]
        sides = [max(border[i : i + 2]) for i in range(0, 2 * dims, 2)][::-1]  # x last
        if mode == "reflect":
            least = [side + 1 for side in sides]
        else:
            least = [min(side, 1) for side in sides] if mode == "replicate" else sides
        if any(need > side for need, side in zip(least, size, strict=True)):
            raise ValueError(
                f"padding_mode={mode!r} needs an input of at least {by(least)} ({SIDES[dims]}), "
                f"got {by(size)}"
            )
    out = input
    for i in range(dims):
        out = _extend_axis(out, 1 + dims - i, border[2 * i], border[2 * i + 1], mode)
    if not torch._C._are_functorch_transforms_active() and is_channels_last(input):
        out = out.movedim(1, -1).contiguous().movedim(-1, 1)
    return out


def _extend_axis(x: Tensor, dim: int, before: int, after: int, mode: str) -> Tensor:
    def part(start: int | None, stop: int | None) -> Tensor:
        index: list[Any] = [slice(None)] * x.dim()
        index[dim] = slice(start, stop)
        return x[tuple(index)]

    def repeat(sample: Tensor, count: int) -> Tensor:
        sizes = [-1] * x.dim()
        sizes[dim] = count
        return sample.expand(sizes)

    pieces = [x]
    if mode == "circular":
        if before:
            pieces.insert(0, part(-before, None))
        if after:
            pieces.append(part(None, after))
    elif mode == "reflect":
        if before:
            pieces.insert(0, part(1, before + 1).flip(dim))
        if after:
            pieces.append(part(-after - 1, -1).flip(dim))
    else:
        if before:
            pieces.insert(0, repeat(part(None, 1), before))
        if after:
            pieces.append(repeat(part(-1, None), after))
    if len(pieces) == 1:
        return x
    # Under autocast, torch.cat refuses the type of 16 bits that autocast does not use
    if is_autocast(x.device):
        with torch.autocast(x.device.type, enabled=False):
            return torch.cat(pieces, dim)
    return torch.cat(pieces, dim)
