# SPDX-License-Identifier: BSD-3-Clause
"""The three layers: taps, padding, one call each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import geometry
from .filters import normalise_taps, phases_sum_alike
from .ops.arguments import as_factors
from .ops.border import MODES, extend
from .ops.upfirdn2d import upfirdn2d, upfirdn2d_bias_act

PADDING_MODES = ("zeros", *MODES)
CHECKPOINT_KERNELS = {"kernel": True, "resample_filter": False}  # name: holds the gain
_warned: set[tuple[tuple[Any, ...], tuple[int, int]]] = set()


class _Resample(nn.Module):
    """What the layers share: taps as Python floats, the buffers made of them, one call.

    ``taps`` serve both axes if 1-D, or are rows ``[kh][kw]``, with sum 1. The gain (the upsampling
    factor of each axis) is folded into the buffers, which are float32, or float64 after
    ``.double()``, never saved, and rebuilt from the floats whenever the module moves.
    """

    kernel_x: Tensor
    kernel_y: Tensor
    kernel_2d: Tensor
    _shown: tuple[str, ...]  # the attributes in the repr

    def __init__(
        self,
        taps: tuple[Any, ...],  # [taps] or [kh][kw], from normalise_taps
        gain: tuple[int, int],
        up: tuple[int, int],
        down: tuple[int, int],
        pad: tuple[int, int, int, int],
        padding_mode: str,
    ) -> None:
        super().__init__()
        if padding_mode not in PADDING_MODES:
            raise ValueError(
                f"padding_mode must be one of {', '.join(PADDING_MODES)}, got {padding_mode!r}"
            )
        self.taps = taps
        self.separable = not isinstance(taps[0], tuple)
        self.gain, self.up, self.down, self.pad = gain, up, down, pad
        self.border = (*geometry.border(*pad[:2], up[0]), *geometry.border(*pad[2:], up[1]))
        self.padding_mode = padding_mode
        for name, values in self._values().items():
            kernel = torch.tensor(values, dtype=torch.float32)
            self.register_buffer(name, kernel, persistent=False)

    @property
    def kernel(self) -> Tensor:
        """The 2-D kernel ``[kh, kw]`` with its gain, as the layer applies it."""
        if self.separable:
            return torch.outer(self.kernel_y, self.kernel_x)
        return self.kernel_2d

    def forward(self, input: Tensor) -> Tensor:
        """Resample ``input`` [N, C, H, W]."""
        return upfirdn2d(*self._call(input))

    def bias_act(
        self,
        input: Tensor,  # [N, C, H, W]
        bias: Tensor | None = None,  # [C]
        noise: Tensor | None = None,  # [N or 1, 1, out_h, out_w]
        noise_strength: Tensor | None = None,  # one element
        negative_slope: float = 0.2,
        gain: float = math.sqrt(2.0),
        clamp: float | None = None,
    ) -> Tensor:
        """Resample; then noise, bias, leaky ReLU, gain and clamp in the same pass over memory.

        See :func:`resample_layers.ops.upfirdn2d_bias_act` for the formula, shapes and errors. A
        method of its own: what hooks or compilers do to calls of the layer, they do not do here.
        """
        input, kernel, up, down, pad = self._call(input)
        epilogue = (bias, noise, noise_strength)
        return upfirdn2d_bias_act(
            input, kernel, *epilogue, up, down, pad, negative_slope, gain, clamp
        )

    def _call(self, input: Tensor) -> tuple[Any, ...]:
        """The op's arguments: input, kernel, up, down, pad."""
        x0, x1, y0, y1 = self.pad
        if self.padding_mode != "zeros":
            (up_x, up_y), border = self.up, self.border
            input = extend(input, border, self.padding_mode)
            x0, x1, y0, y1 = (
                x0 - border[0] * up_x,
                x1 - border[1] * up_x,
                y0 - border[2] * up_y,
                y1 - border[3] * up_y,
            )
        kernel = (self.kernel_x, self.kernel_y) if self.separable else self.kernel_2d
        return input, kernel, self.up, self.down, (x0, x1, y0, y1)

    def extra_repr(self) -> str:
        rows = [self.taps] if self.separable else self.taps
        unit = min(abs(tap) for row in rows for tap in row if tap)
        shown = [[round(tap / unit, 4) for tap in row] for row in rows]
        parts = [f"resample_kernel={_short(shown[0] if self.separable else shown)}"]
        for name in self._shown:
            x, y = getattr(self, name)
            parts.append(f"{name}={x if x == y else (x, y)}")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode!r}")
        return ", ".join(parts)

    def _values(self) -> dict[str, Any]:
        """The buffers' values by name, gain folded in."""
        gain_x, gain_y = self.gain
        if self.separable:
            return {
                "kernel_x": [tap * gain_x for tap in self.taps],
                "kernel_y": [tap * gain_y for tap in self.taps],
            }
        return {"kernel_2d": [[tap * gain_x * gain_y for tap in row] for row in self.taps]}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Resample:
        """Move the module, then write the kernels anew: no move leaves them rounded or unset."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, values in self._values().items():
            moved = self._buffers.get(name)
            if moved is None:  # somebody made a parameter of it: theirs to keep
                continue
            dtype = torch.float64 if moved.dtype == torch.float64 else torch.float32
            kernel = torch.tensor(values, dtype=dtype, device=moved.device)
            if moved.dtype == dtype and not moved.is_inference():
                moved.copy_(kernel)  # in place: shared memory stays shared
            else:
                self._buffers[name] = kernel
        return self

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Accept the filters that other codes keep in their checkpoints, if they are ours."""
        error_msgs: list[str] = args[-1] if args else kwargs["error_msgs"]
        for name, with_gain in CHECKPOINT_KERNELS.items():
            stored = state_dict.get(prefix + name)
            if stored is None:
                continue
            del state_dict[prefix + name]  # type: ignore[attr-defined]  # a copy of the user's
            ours = self._as_stored(with_gain)
            try:
                theirs, eps = _stored_kernel(stored)
            except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
                error_msgs.append(f"{prefix}{name} must hold taps, got {stored!r}: {error}")
                continue
            # Equal to the rounding of the stored dtype, which went through a few operations
            if theirs.shape != ours.shape or not bool(
                (theirs - ours).abs().max() <= max(1e-5, 4 * eps) * ours.abs().max()
            ):
                error_msgs.append(
                    f"{prefix}{name} must hold the taps of this layer, {_short(ours.tolist())}, "
                    f"got {_short(theirs.tolist())}"
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[arg-type]

    def _as_stored(self, with_gain: bool) -> Tensor:
        """[kh, kw] in float64 on the CPU, with or without the gain."""
        taps = torch.tensor(self.taps, dtype=torch.float64, device="cpu")
        kernel = torch.outer(taps, taps) if self.separable else taps
        return kernel * (self.gain[0] * self.gain[1]) if with_gain else kernel


class UpFirDnUpsample(_Resample):
    """Upsample images by an integer factor with an FIR filter: ``[H, W] -> [H * f, W * f]``.

    1. Insert ``factor - 1`` zeros after each sample.
    2. Filter with the normalised kernel times ``factor ** 2``, padded so that the image stays
       centred.

    Gives BasicSR's numbers. Beyond BasicSR: factors and kernels may differ by axis (a non-square
    kernel pads each axis by its own length), padding modes, and the kernel follows the module's
    device and keeps full precision in half models.

    Args:
        resample_kernel: taps, 1-D (separable) or 2-D, of any sum but zero.
        factor: an int or ``(x, y)``.
        padding_mode: 'zeros', 'reflect', 'replicate' or 'circular': how the image continues
            beyond its border. Zeros darken the border.

    Shape:
        - input: ``[N, C, H, W]``, float16, bfloat16, float32 or float64
        - output: ``[N, C, H * factor_y, W * factor_x]``

    Raises:
        TypeError, ValueError: if an argument is at fault.

    Warns:
        UserWarning: once, if the taps' phases do not sum alike at the factor, which leaves a
        pattern on flat images.

    Example:
        >>> import torch
        >>> UpFirDnUpsample((1, 3, 3, 1), factor=2)(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 3, 16, 16])

    Source of the formula: Karras et al., StyleGAN2, 2020; pads in
    :func:`resample_layers.geometry.upsample_pad`.
    """

    _shown = ("factor",)

    def __init__(
        self,
        resample_kernel: Any = (1, 3, 3, 1),
        factor: int | Sequence[int] = 2,
        padding_mode: str = "zeros",
    ) -> None:
        taps = normalise_taps("resample_kernel", resample_kernel)
        factors = as_factors("factor", factor)
        kh, kw = _size(taps)
        pad = (
            *geometry.upsample_pad(kw, factors[0]),
            *geometry.upsample_pad(kh, factors[1]),
        )
        super().__init__(taps, factors, factors, (1, 1), pad, padding_mode)
        self.factor = factors
        _warn_uneven_phases(self.taps, factors)


class UpFirDnDownsample(_Resample):
    """Downsample images by an integer factor with an FIR filter: ``[H, W] -> [H // f, W // f]``.

    1. Filter with the normalised kernel, padded so that the image stays centred.
    2. Keep every ``factor``-th sample.

    Gives BasicSR's numbers; what goes beyond is said at :class:`UpFirDnUpsample`.

    Args:
        resample_kernel: taps, 1-D (separable) or 2-D, of any sum but zero.
        factor: an int or ``(x, y)``.
        padding_mode: 'zeros', 'reflect', 'replicate' or 'circular'.

    Shape:
        - input: ``[N, C, H, W]``, float16, bfloat16, float32 or float64
        - output: ``[N, C, H // factor_y, W // factor_x]``

    Raises:
        TypeError, ValueError: if an argument is at fault; ValueError also if an output side is
            below 1.

    Example:
        >>> import torch
        >>> UpFirDnDownsample((1, 3, 3, 1), factor=2)(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 3, 4, 4])

    Source of the formula: Karras et al., StyleGAN2, 2020; pads in
    :func:`resample_layers.geometry.downsample_pad`.
    """

    _shown = ("factor",)

    def __init__(
        self,
        resample_kernel: Any = (1, 3, 3, 1),
        factor: int | Sequence[int] = 2,
        padding_mode: str = "zeros",
    ) -> None:
        taps = normalise_taps("resample_kernel", resample_kernel)
        factors = as_factors("factor", factor)
        kh, kw = _size(taps)
        pad = (
            *geometry.downsample_pad(kw, factors[0]),
            *geometry.downsample_pad(kh, factors[1]),
        )
        super().__init__(taps, (1, 1), (1, 1), factors, pad, padding_mode)
        self.factor = factors


class UpFirDnSmooth(_Resample):
    """Smooth images beside a strided convolution; the layer itself never changes the rate.

    With ``upsample_factor > 1`` it stands *after* a transposed convolution of that stride and of
    ``kernel_size``, without padding: ``(H - 1) * f + kernel_size -> H * f``, and the kernel is
    scaled by ``f ** 2``. With ``downsample_factor > 1`` it stands *before* a convolution of that
    stride and of ``kernel_size``, without padding, whose output then is ``H // f``. With both 1
    it stands before a convolution of ``kernel_size`` without padding and keeps the size; alone
    (``kernel_size=1``) it smooths at the same size.

    Gives BasicSR's numbers wherever BasicSR's are right. It differs where they are not: with both
    factors 1 BasicSR raises a bare NotImplementedError; with upsample factors above 2 its output
    is too small, here the second pad restores the size; both factors above 1 is an error here,
    while BasicSR ignores the second.

    Args:
        resample_kernel: taps, 1-D (separable) or 2-D, of any sum but zero.
        upsample_factor: stride of the transposed convolution before; an int or ``(x, y)``.
        downsample_factor: stride of the convolution after; an int or ``(x, y)``.
        kernel_size: size of that convolution's kernel, an int or ``(x, y)``.
        padding_mode: 'zeros', 'reflect', 'replicate' or 'circular'.

    Shape:
        - input: ``[N, C, H, W]``, float16, bfloat16, float32 or float64
        - output: ``[N, C, H + pad_y0 + pad_y1 - kh + 1, W + pad_x0 + pad_x1 - kw + 1]`` with the
          pads of :func:`resample_layers.geometry.smooth_pad`

    Raises:
        TypeError, ValueError: if an argument is at fault; ValueError also if both factors are
            above 1.

    Example:
        >>> import torch
        >>> UpFirDnSmooth((1, 3, 3, 1))(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 3, 8, 8])

    Source of the formula: Karras et al., StyleGAN2, 2020, convolutions with resampling.
    """

    _shown = ("upsample_factor", "downsample_factor", "kernel_size")

    def __init__(
        self,
        resample_kernel: Any = (1, 3, 3, 1),
        upsample_factor: int | Sequence[int] = 1,
        downsample_factor: int | Sequence[int] = 1,
        kernel_size: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
    ) -> None:
        taps = normalise_taps("resample_kernel", resample_kernel)
        up = as_factors("upsample_factor", upsample_factor)
        down = as_factors("downsample_factor", downsample_factor)
        size = as_factors("kernel_size", kernel_size)
        if max(up) > 1 and max(down) > 1:
            raise ValueError(
                "only one of upsample_factor and downsample_factor may be above 1, got "
                f"upsample_factor={upsample_factor!r}, downsample_factor={downsample_factor!r}"
            )
        kh, kw = _size(taps)
        after = max(up) > 1
        pad = (
            *geometry.smooth_pad(kw, up[0], down[0], size[0], after),
            *geometry.smooth_pad(kh, up[1], down[1], size[1], after),
        )
        super().__init__(taps, up, (1, 1), (1, 1), pad, padding_mode)
        self.upsample_factor, self.downsample_factor, self.kernel_size = up, down, size
        _warn_uneven_phases(self.taps, up)


def _size(taps: tuple[Any, ...]) -> tuple[int, int]:
    """(kh, kw): 1-D taps serve both axes."""
    return len(taps), len(taps[0]) if isinstance(taps[0], tuple) else len(taps)


def _stored_kernel(stored: Any) -> tuple[Tensor, float]:
    """A checkpoint's filter as [kh, kw] in float64, and the resolution of the dtype it had."""
    kernel = torch.as_tensor(stored).detach()
    eps = torch.finfo(kernel.dtype).eps if kernel.is_floating_point() else 0.0
    kernel = kernel.to("cpu", torch.float64)
    while kernel.dim() > 2 and kernel.shape[0] == 1:
        kernel = kernel[0]
    return (torch.outer(kernel, kernel) if kernel.dim() == 1 else kernel), eps


def _warn_uneven_phases(taps: tuple[Any, ...], factor: tuple[int, int]) -> None:
    """Warn, once for the same taps and factor, when upsampling would leave a pattern."""
    if phases_sum_alike(taps, factor) or (taps, factor) in _warned:
        return
    _warned.add((taps, factor))
    uneven = [f for f in factor if isinstance(taps[0], tuple) or not phases_sum_alike(taps, f)]
    warnings.warn(
        f"the phases of resample_kernel do not sum alike at factor {uneven[0]}, which leaves a "
        f"pattern on flat images; resample_layers.filters.design_resample_taps({uneven[0]}) gives "
        "taps that do",
        UserWarning,
        stacklevel=3,
    )


def _short(values: Any) -> str:
    """Nested numbers in few characters."""
    if isinstance(values, list):
        return "[" + ", ".join(_short(value) for value in values) + "]"
    return f"{values:.6g}"
