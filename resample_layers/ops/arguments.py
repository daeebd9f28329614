# SPDX-License-Identifier: BSD-3-Clause
"""What a user may pass, and the sentence that says why not. Inside the package, trust."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, overload

import torch
from torch import Tensor

from .. import geometry
from ..values import as_index, shown, to_float
from .modes import is_tracing

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
SHAPES = {  # by dimensions of space; 0: any
    0: "[N, C, ...]",
    1: "[N, C, L]",
    2: "[N, C, H, W]",
    3: "[N, C, D, H, W]",
}
SIDES = {1: "length", 2: "height x width", 3: "depth x height x width"}
AXES = {1: "1 int (x,)", 2: "2 ints (x, y)", 3: "3 ints (x, y, z)"}


def check_call(
    input: Any, kernel: Any, up: Any, down: Any, pad: Any
) -> tuple[Tensor, Tensor | None, Pair, Pair, Pads]:
    """Check one call of the op completely.

    Returns:
        ``(kernel, taps_y, up, down, pad)``: ``kernel`` is ``[kh, kw]`` with ``taps_y`` None, or
        ``[kw]`` of a separable kernel with ``taps_y`` ``[kh]``, the same tensor where the taps
        serve both axes; factors are ``(x, y)``, pads ``(x0, x1, y0, y1)``.

    Raises:
        TypeError: for a wrong kind of value.
        ValueError: for a wrong value.
    """
    check_input(input)
    kernel, taps_y, kh, kw = _check_kernel("kernel", kernel, input)
    # Most factors are one int for both axes, which is seen at once; a call for each costs more
    up = (up, up) if type(up) is int and 0 < up < 2**31 else as_factors("up", up)
    down = (down, down) if type(down) is int and 0 < down < 2**31 else as_factors("down", down)
    pad = as_pads(pad)
    if not is_tracing():  # traced sizes are tensors: comparing them would fix them
        _, _, h, w = input.shape
        out_h, out_w = geometry.output_sizes((h, w), up, down, pad, (kh, kw))
        if out_h < 1 or out_w < 1:
            raise ValueError(
                f"output must be at least 1x1 (height x width), got {out_h}x{out_w} from input "
                f"{h}x{w}, kernel {kh}x{kw}, up={up}, down={down}, pad={pad}"
            )
    return kernel, taps_y, up, down, pad


def check_filtered_call(
    dims: int,
    input: Any,
    kernels: dict[str, Any],  # up_kernel, down_kernel; None: no filter
    operands: dict[str, Any],  # per channel, or None
    up: Any,
    down: Any,
    pads: dict[str, Any],  # pad, down_pad
    padding_mode: Any,
    constants: tuple[Any, Any, Any],  # negative_slope, gain, clamp
) -> tuple[Any, ...]:
    """Check one call of a filtered activation on signals (``dims`` 1) or images (2) completely.

    Returns:
        What :data:`filtered_act.FILTERED_ACT` takes after its operands, but for the activation:
        ``(taps, up, down, up_pad, down_pad, replicate, constants)``; ``taps`` are ``up_kernel``,
        ``up_taps_y``, ``down_kernel``, ``down_taps_y`` of images, a signal's being of one row.

    Raises:
        TypeError: for a wrong kind of value.
        ValueError: for a wrong value.
    """
    check_input(input, dims)
    taps: list[Tensor | None] = []
    sizes: list[Pair] = []
    for name, kernel in kernels.items():
        if kernel is None:
            kernel = input.new_ones(1, dtype=torch.promote_types(input.dtype, torch.float32))
        if dims == 1:
            (axis,) = _taps_by_axis(1, kernel, input, name)
            taps += [axis.unsqueeze(0), None]
            sizes.append((1, axis.shape[0]))
        else:
            *both, kh, kw = _check_kernel(name, kernel, input)
            taps += both
            sizes.append((kh, kw))
    flat = (1,) * (2 - dims)  # a signal is an image of one row
    ups: Any = (*as_factors("up", up, dims), *flat)
    downs: Any = (*as_factors("down", down, dims), *flat)
    up_pad, down_pad = (
        as_pads(pad, name) if dims == 2 else (*_pads_by_axis(1, pad, name), *(0, 0))
        for name, pad in pads.items()
    )
    for name, operand in operands.items():
        check_operand(name, operand, input)
        if operand is not None and not is_tracing() and tuple(operand.shape) != (input.shape[1],):
            raise ValueError(
                f"{name} must be [C] with the C of input, {input.shape[1]}, got shape "
                f"{tuple(operand.shape)}"
            )
    slope, gain, clamp = constants
    slope = _as_float("negative_slope", slope, zero=True)
    gain = _as_float("gain", gain)
    clamp = None if clamp is None else _as_float("clamp", clamp)
    if not isinstance(padding_mode, str):
        raise TypeError(f"padding_mode must be a string, got {_describe(padding_mode)}")
    if padding_mode not in ("zeros", "replicate"):
        raise ValueError(
            f"padding_mode must be 'zeros' or 'replicate', got padding_mode={shown(padding_mode)}"
        )
    replicate = padding_mode == "replicate"
    if not is_tracing():  # traced sizes are tensors: comparing them would fix them
        size = (*flat, *input.shape[2:])
        middle = geometry.output_sizes(size, ups, (1, 1), up_pad, sizes[0])
        out = geometry.output_sizes(middle, (1, 1), downs, down_pad, sizes[1])
        sides = [("the upsampled signal", middle), ("output", out)]
        for name, side in [("input", size), *sides] if replicate else sides:
            if side[0] < 1 or side[1] < 1:
                lengths = [by(k[2 - dims :]) for k in sizes]
                raise ValueError(
                    f"{name} must be at least {by([1] * dims)} ({SIDES[dims]}), got "
                    f"{by(side[2 - dims :])} from input {by(size[2 - dims :])}, up_kernel "
                    f"{lengths[0]}, down_kernel {lengths[1]}, up={ups[:dims]}, "
                    f"down={downs[:dims]}, pad={up_pad[: 2 * dims]}, "
                    f"down_pad={down_pad[: 2 * dims]}, padding_mode={padding_mode!r}"
                )
    return tuple(taps), ups, downs, up_pad, down_pad, replicate, (slope, gain, clamp)


def check_separable_call(
    dims: int, input: Any, taps: Any, up: Any, down: Any, pad: Any
) -> tuple[Any, ...]:
    """Check one call of the op on signals (``dims`` 1) or volumes (3) completely.

    Returns:
        ``(taps, up, down, pad)``: taps and factors of each axis, x first, pads ``(x0, x1, ...)``.

    Raises:
        TypeError: for a wrong kind of value.
        ValueError: for a wrong value.
    """
    check_input(input, dims)
    taps = _taps_by_axis(dims, taps, input)
    up, down = as_factors("up", up, dims), as_factors("down", down, dims)
    pad = _pads_by_axis(dims, pad)
    if not is_tracing():  # traced sizes are tensors: comparing them would fix them
        size, lengths = input.shape[2:], [len(t) for t in taps[::-1]]  # x last
        axes = zip(size, up[::-1], down[::-1], pad[-2::-2], pad[::-2], lengths, strict=True)
        out = [geometry.output_size(*axis) for axis in axes]
        if any(side < 1 for side in out):
            raise ValueError(
                f"output must be at least {by([1] * dims)} ({SIDES[dims]}), got {by(out)} from "
                f"input {by(size)}, kernel {by(lengths)}, up={up}, down={down}, pad={pad}"
            )
    return taps, up, down, pad


def _taps_by_axis(dims: int, taps: Any, input: Tensor, name: str = "taps") -> tuple[Tensor, ...]:
    """A tensor [taps] for all axes; of volumes, or three of them."""
    rule = "a tensor [taps]" + (" or three of them (taps_x, taps_y, taps_z)" if dims == 3 else "")
    if isinstance(taps, Tensor):
        named = [(name, taps)]
    elif dims == 3 and isinstance(taps, (tuple, list)) and all(isinstance(t, Tensor) for t in taps):
        if len(taps) != 3:
            raise ValueError(f"taps must be {rule}, got {len(taps)} tensors")
        named = [(f"taps[{i}]", t) for i, t in enumerate(taps)]
    else:
        raise TypeError(f"{name} must be {rule}, got {_describe(taps)}")
    for name, t in named:
        if t.dim() != 1:
            why = ": kernels that are not separable are for images" if t.dim() == dims else ""
            raise ValueError(
                f"{name} must have 1 dimension [taps]{why}, got {t.dim()}: shape {tuple(t.shape)}"
            )
        _check_taps(name, t, input)
    return tuple(t for _, t in named) * (dims // len(named))


def _pads_by_axis(dims: int, pad: Any, name: str = "pad") -> Any:
    """An int for all sides, (before, after) for all axes, or pairs (x0, x1, ...) by axis."""
    if not isinstance(pad, (tuple, list)):
        return (_as_int(name, pad, pad),) * (2 * dims)
    if len(pad) not in (2, 2 * dims):
        rule = " for all axes, or 6 values (x0, x1, y0, y1, z0, z1)" if dims == 3 else ""
        raise ValueError(
            f"{name} must be an int or have 2 values (before, after){rule}, "
            f"got {len(pad)}: {name}={shown(pad)}"
        )
    pads = tuple(_as_int(name, side, pad) for side in pad)
    return pads * dims if len(pads) == 2 else pads


def by(sizes: Sequence[int]) -> str:
    """Sizes in a sentence: 4x5."""
    return "x".join(map(str, sizes))


def check_input(input: Any, dims: int = 2) -> None:
    """A floating-point tensor [N, C, H, W], or of other ``dims`` of space; 0: of any rank.

    Raises:
        TypeError: for another kind or dtype. ValueError: for another rank.
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a tensor {SHAPES[dims]}, got {_describe(input)}")
    if input.dtype not in DTYPES:
        raise TypeError(f"input must be float16, bfloat16, float32 or float64, got {input.dtype}")
    if input.layout != torch.strided:
        raise ValueError(f"input must be dense, got a tensor of layout {input.layout}")
    if input.dim() != 2 + dims and dims:
        raise ValueError(
            f"input must have {2 + dims} dimensions {SHAPES[dims]}, got {input.dim()}: "
            f"shape {tuple(input.shape)}"
        )


def check_epilogue(
    input: Tensor,
    size: Pair,  # (out_h, out_w)
    bias: Any,
    noise: Any,
    noise_strength: Any,
    scale: Any,
    negative_slope: Any,
    gain: Any,
    clamp: Any,
) -> tuple[float, float, float | None]:
    """Check what follows the op.

    Returns:
        ``(negative_slope, gain, clamp)`` as floats, ``clamp`` None for none.

    Raises:
        TypeError: for a wrong kind of value.
        ValueError: for a wrong value.
    """
    n, c = input.shape[:2]
    sized = not is_tracing()  # traced sizes are tensors: comparing them would fix them
    check_operand("bias", bias, input)
    if bias is not None and sized and tuple(bias.shape) != (c,):
        raise ValueError(
            f"bias must be [C] with the C of input, {c}, got shape {tuple(bias.shape)}"
        )
    check_operand("noise", noise, input)
    if noise is not None and sized:
        shape = tuple(noise.shape)
        if len(shape) != 4 or shape[0] not in (1, n) or shape[1:] != (1, *size):
            raise ValueError(
                f"noise must be [N or 1, 1, out_h, out_w], here [{n} or 1, 1, {size[0]}, "
                f"{size[1]}], got shape {shape}"
            )
    check_operand("noise_strength", noise_strength, input)
    if noise_strength is not None:
        if noise is None:
            raise ValueError("noise_strength must come with noise, got noise=None")
        if sized and noise_strength.numel() != 1:
            raise ValueError(
                "noise_strength must be a tensor of one element, got shape "
                f"{tuple(noise_strength.shape)}"
            )
    check_operand("scale", scale, input)
    if scale is not None and sized and tuple(scale.shape) != (n, c):
        raise ValueError(
            f"scale must be [N, C] with the N and C of input, [{n}, {c}], got shape "
            f"{tuple(scale.shape)}"
        )
    slope = _as_float("negative_slope", negative_slope, zero=True)
    gain = _as_float("gain", gain)
    return slope, gain, None if clamp is None else _as_float("clamp", clamp)


def check_required(name: str, value: Any) -> None:
    """A tensor with a number for each channel, which may not be absent."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor [C], got {_describe(value)}")


def check_operand(name: str, value: Any, input: Tensor) -> None:
    """None, or a floating-point tensor on the device of ``input``."""
    if value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor or None, got {_describe(value)}")
    if value.dtype not in DTYPES:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {value.dtype}")
    if value.layout != torch.strided:
        raise ValueError(f"{name} must be dense, got a tensor of layout {value.layout}")
    if value.device != input.device:
        raise ValueError(
            f"{name} must be on the device of input, got {name} on {value.device} "
            f"and input on {input.device}"
        )


def _as_float(name: str, value: Any, zero: bool = False) -> float:
    """A finite number above zero, or zero too."""
    if isinstance(value, (bool, Tensor)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {name}={_describe(value)}")
    number = to_float(value)
    if not (0 < number < math.inf or (zero and number == 0)):
        rule = ">= 0" if zero else "> 0"
        raise ValueError(f"{name} must be finite and {rule}, got {name}={shown(value)}")
    return number


@overload
def as_factors(name: str, value: Any) -> Pair: ...
@overload
def as_factors(name: str, value: Any, dims: int) -> tuple[int, ...]: ...
def as_factors(name: str, value: Any, dims: int = 2) -> tuple[int, ...]:
    """An int >= 1, or one of them for each axis (x, y)."""
    if type(value) is int and 0 < value < 2**31:  # the usual
        return (value,) * dims
    if isinstance(value, (tuple, list)):
        if len(value) != dims:
            raise ValueError(f"{name} must be an int or {AXES[dims]}, got {name}={shown(value)}")
        factors = tuple([_as_int(name, factor, value) for factor in value])
    else:
        factors = (_as_int(name, value, value),) * dims
    for factor in factors:
        if factor < 1:
            axes = {1: "", 2: " in both axes", 3: " in all axes"}[dims]
            raise ValueError(f"{name} must be >= 1{axes}, got {name}={shown(value)}")
    return factors


def as_pads(pad: Any, name: str = "pad") -> Pads:
    """(before, after) for both axes, or (x0, x1, y0, y1); negative values crop."""
    if not isinstance(pad, (tuple, list)):
        raise TypeError(
            f"{name} must be 2 ints (before, after) for both axes or 4 ints (x0, x1, y0, y1), "
            f"got {name}={_describe(pad)}"
        )
    if len(pad) == 2:
        before, after = _as_int(name, pad[0], pad), _as_int(name, pad[1], pad)
        return before, after, before, after
    if len(pad) == 4:
        x0, x1, y0, y1 = pad
        return (
            _as_int(name, x0, pad),
            _as_int(name, x1, pad),
            _as_int(name, y0, pad),
            _as_int(name, y1, pad),
        )
    raise ValueError(
        f"{name} must have 2 values (before, after) or 4 values (x0, x1, y0, y1), "
        f"got {len(pad)}: {name}={shown(pad)}"
    )


def _check_kernel(name: str, kernel: Any, input: Tensor) -> tuple[Tensor, Tensor | None, int, int]:
    """``(kernel, taps_y, kh, kw)`` of a 2-D kernel, of taps for both axes or of a pair of taps."""
    if isinstance(kernel, Tensor):
        return _check_taps(name, kernel, input)
    return _taps_pair(name, kernel, input)


def _check_taps(name: str, kernel: Tensor, input: Tensor) -> tuple[Tensor, Tensor | None, int, int]:
    """``(kernel, taps_y, kh, kw)`` of a kernel, or of taps for both axes."""
    if kernel.dtype not in DTYPES:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {kernel.dtype}")
    if kernel.layout != torch.strided:
        raise ValueError(f"{name} must be dense, got a tensor of layout {kernel.layout}")
    shape = kernel.shape
    taps_y = None
    if len(shape) == 2:
        kh, kw = shape
    elif len(shape) == 1:
        kh = kw = shape[0]
        taps_y = kernel
    else:
        raise ValueError(
            f"{name} must be [kh, kw], [taps] or a pair of taps ([kw], [kh]), "
            f"got {len(shape)} dimensions: shape {tuple(shape)}"
        )
    if not is_tracing() and (kh < 1 or kw < 1):
        raise ValueError(f"{name} must have at least one tap, got shape {tuple(shape)}")
    if kernel.device != input.device:
        raise ValueError(
            f"{name} must be on the device of input, got {name} on {kernel.device} "
            f"and input on {input.device}"
        )
    return kernel, taps_y, kh, kw


def _taps_pair(name: str, kernel: Any, input: Tensor) -> tuple[Tensor, Tensor, int, int]:
    if not isinstance(kernel, (tuple, list)) or not all(isinstance(t, Tensor) for t in kernel):
        raise TypeError(
            f"{name} must be a tensor [kh, kw] or [taps], or a pair of tensors "
            f"(taps_x, taps_y), got {_describe(kernel)}"
        )
    if len(kernel) != 2 or kernel[0].dim() != 1 or kernel[1].dim() != 1:
        raise ValueError(
            f"{name} as a pair must be two tensors (taps_x, taps_y) of 1 dimension each, got "
            f"{len(kernel)} of shapes {[tuple(t.shape) for t in kernel]}"
        )
    taps_x, taps_y = kernel
    *_, kw = _check_taps(f"{name}[0]", taps_x, input)
    *_, kh = _check_taps(f"{name}[1]", taps_y, input)
    return taps_x, taps_y, kh, kw


def _as_int(name: str, value: Any, whole: Any) -> int:
    """An int, a numpy integer or a symbolic int; no bool, float, string or tensor."""
    if type(value) is not int:
        if isinstance(value, torch.SymInt):
            return value  # type: ignore[return-value]  # it stands for an int
        index = None if isinstance(value, Tensor) else as_index(value)
        if index is None:
            raise TypeError(f"{name} must be made of ints, got {name}={_describe(whole)}")
        value = index
    if not -(2**31) < value < 2**31:
        raise ValueError(f"{name} must be made of ints of 32 bits, got {name}={_describe(whole)}")
    return value  # type: ignore[no-any-return]


def _describe(value: Any) -> str:
    """A short value with its type, or the type alone: an error must stay one sentence."""
    text, kind = shown(value, 60), type(value).__name__
    return kind if text == kind or text.endswith("...") else f"{text} ({kind})"
