# SPDX-License-Identifier: BSD-3-Clause
"""What the conventions share: checks that name the arguments as the original does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Number, Real
from typing import Any

import torch
from torch import Tensor

from ..filters import normalise_taps
from ..ops.arguments import DTYPES, Pads, as_factors, as_pads
from ..ops.modes import is_tracing
from ..values import as_index, shown, to_float


def as_rate(name: str, value: Any) -> int:
    """One int >= 1, which serves both axes.

    Raises:
        TypeError: for another kind of value.
        ValueError: for a value below 1.
    """
    if isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be an int for both axes, got {name}={shown(value)}")
    return as_factors(name, value)[0]


def as_count(name: str, value: Any) -> int:
    """An int >= 0 of 32 bits.

    Raises:
        TypeError: for another kind of value.
        ValueError: for another int.
    """
    count = as_index(value)
    if count is None:
        raise TypeError(f"{name} must be an int, got {name}={shown(value)}")
    if count < 0:
        raise ValueError(f"{name} must be >= 0, got {name}={shown(value)}")
    if count >= 2**31:
        raise ValueError(f"{name} must be an int of 32 bits, got {name}={shown(value)}")
    return count


def as_flag(name: str, value: Any) -> bool:
    """True or False; other values count as what they are in a condition, as in the originals.

    These are None, numbers, and tensors and numpy's arrays of one element.

    Raises:
        TypeError: for another kind of value, a string too.
    """
    if isinstance(value, Tensor):
        is_one = value.layout == torch.strided and not value.is_meta and value.numel() == 1
    else:
        kind = getattr(getattr(value, "dtype", None), "kind", "")  # numpy's letter; none: no array
        is_one = kind in tuple("biufc") and value.size == 1
    if not (value is None or isinstance(value, Number) or is_one):
        raise TypeError(f"{name} must be a bool, got {name}={shown(value)}")
    return bool(value)


def as_list(value: Any) -> Any:
    """An array of numpy as a list; anything else stays."""
    is_array = hasattr(value, "tolist") and not isinstance(value, Tensor)
    return value.tolist() if is_array else value


def check_dense(name: str, value: Tensor) -> None:
    """A tensor that is not sparse.

    Raises:
        ValueError: for another layout.
    """
    if value.layout != torch.strided:
        raise ValueError(f"{name} must be dense, got a tensor of layout {value.layout}")


def as_number(name: str, value: Any, infinite: bool = False) -> float:
    """A finite number of any sign; a bool and a tensor of one element are, as in the originals.

    ``infinite``: an infinite one too.

    Raises:
        TypeError: for another kind of value.
        ValueError: for one that is not finite, or a tensor that requires a gradient: the
            originals give it none.
    """
    is_number = isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
    if is_number and not value.is_meta and value.layout == torch.strided:
        if value.requires_grad:
            raise ValueError(
                f"{name} must be a number, which gets no gradient, got {name}={shown(value)}"
            )
        value = value.item()
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {name}={shown(value)}")
    number = to_float(value)
    # By comparisons, which compilers follow where numbers are symbols
    if not (-math.inf < number < math.inf or (infinite and abs(number) == math.inf)):
        rule = "a number or infinite" if infinite else "finite"
        raise ValueError(f"{name} must be {rule}, got {name}={shown(value)}")
    return number


def as_paddings(padding: Any) -> Pads:
    """NVIDIA's padding as (x0, x1, y0, y1): one int; ``[x, y]``, each for both sides; or four.

    Raises:
        TypeError: for what is not made of ints.
        ValueError: for another length.
    """
    values = list(padding) if isinstance(padding, (tuple, list)) else [padding] * 4
    if len(values) == 2:
        values = [values[0], values[0], values[1], values[1]]
    if len(values) != 4:
        raise ValueError(
            "padding must be an int, 2 ints [x, y] or 4 ints [x0, x1, y0, y1], "
            f"got padding={shown(padding)}"
        )
    try:
        return as_pads(values)
    except (TypeError, ValueError):
        raise TypeError(
            f"padding must be made of ints of 32 bits, got padding={shown(padding)}"
        ) from None


def as_device(device: Any) -> torch.device | None:
    """A device by its name; None stays None.

    Raises:
        ValueError: if there is no such device.
    """
    try:
        return None if device is None else torch.device(device)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"device must be the name of one, got device={shown(device)}") from None


def check_device(names: tuple[str, str], input: Tensor, other: Tensor) -> None:
    """``other`` on the device of ``input``.

    Raises:
        ValueError: if it is not.
    """
    if other.device != input.device:
        raise ValueError(
            f"{names[1]} must be on the device of {names[0]}, got {names[1]} on {other.device} "
            f"and {names[0]} on {input.device}"
        )


def check_images(name: str, value: Any, sides: str = "[N, C, H, W]") -> None:
    """A floating-point tensor of four dimensions.

    Raises:
        TypeError: for another kind or dtype.
        ValueError: for another rank.
    """
    if not isinstance(value, Tensor) or value.dtype not in DTYPES:
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a floating-point tensor {sides}, got {kind}")
    check_dense(name, value)
    if value.dim() != 4:
        raise ValueError(f"{name} must be {sides}, got shape {tuple(value.shape)}")


def check_filter(name: str, value: Any) -> None:
    """A floating-point tensor [kh, kw] or [taps].

    Raises:
        TypeError: for another kind or dtype.
        ValueError: for another rank, or no tap.
    """
    if not isinstance(value, Tensor) or value.dtype not in DTYPES:
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a floating-point tensor or None, got {kind}")
    check_dense(name, value)
    if value.dim() not in (1, 2) or 0 in tap_counts(value):
        raise ValueError(
            f"{name} must be [kh, kw] or [taps] with at least one tap, "
            f"got shape {tuple(value.shape)}"
        )


def tap_counts(filter: Tensor) -> tuple[int, int]:
    """How many taps there are in x and in y, of ``[..., kh, kw]`` or of ``[taps]`` for both.

    Ints for a tracer too, to which sizes are tensors: the pads of a call follow from them.
    """
    height = -min(2, filter.dim())
    if is_tracing():
        return len(filter.unbind(-1)), len(filter.unbind(height))
    return filter.shape[-1], filter.shape[height]


def make_kernel(name: str, k: Any) -> Tensor:
    """``outer(k, k)`` if 1-D, divided by its sum, all in float32, as the originals compute it.

    Raises:
        TypeError, ValueError: as :func:`resample_layers.make_resample_kernel`; the originals
            divide by a sum of zero.
    """
    normalise_taps(name, k)  # the checks
    if isinstance(k, (list, tuple)):  # rows may be tensors
        k = [row.tolist() if isinstance(row, Tensor) else row for row in k]
    kernel = torch.as_tensor(k, dtype=torch.float32)
    if kernel.dim() == 1:
        kernel = torch.outer(kernel, kernel)
    return kernel / kernel.sum()


def make_square_kernel(name: str, k: Any) -> Tensor:
    """:func:`make_kernel` ``[k, k]``: the originals' layers pad both axes by the height.

    Raises:
        TypeError, ValueError: as :func:`make_kernel`, and for a kernel that is not square.
    """
    kernel = make_kernel(name, k)
    check_square(name, kernel.shape)
    return kernel


def check_square(name: str, shape: Sequence[int]) -> None:
    """A kernel as high as wide.

    Raises:
        ValueError: for another, which the originals pad wrongly.
    """
    if shape[0] != shape[1]:
        raise ValueError(
            f"{name} must be square, got {shape[0]}x{shape[1]}: the original pads both axes by "
            "the height; the layers of resample_layers pad each by its own"
        )
