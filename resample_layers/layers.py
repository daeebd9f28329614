# SPDX-License-Identifier: BSD-3-Clause
"""The three layers: taps, padding, one call each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import geometry
from .filters import normalise_taps, phases_sum_alike
from .ops.arguments import as_factors
from .ops.upfirdn2d import upfirdn2d

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
CHECKPOINT_KERNELS = {"kernel": True, "resample_filter": False}  # name: holds the gain
_warned: set[tuple[tuple[Any, ...], tuple[int, int]]] = set()


class _Resample(nn.Module):
    """What the layers share: taps as Python floats, the buffers made of them, one call.

    ``taps`` is ``(taps_x, taps_y)`` or a nested tuple ``[kh][kw]``, unit sum; the gain (the
    product of the upsampling factors) is folded into the buffers, which are float32, or float64
    after ``.double()``, never saved, and rebuilt from the floats whenever the module moves.
    """

    kernel_x: Tensor
    kernel_y: Tensor
    kernel_2d: Tensor
    _shown: tuple[str, ...]  # the attributes in the repr

    def __init__(
        self,
        taps: Tensor,  # [taps] or [kh, kw], float64, unit sum
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
        self.separable = taps.dim() == 1
        self.taps: tuple[Any, ...] = tuple(
            taps.tolist() if self.separable else map(tuple, taps.tolist())
        )
        self.gain, self.up, self.down, self.pad = gain, up, down, pad
        self.padding_mode = padding_mode
        self._build(None, torch.float32)

    @property
    def kernel(self) -> Tensor:
        """The 2-D kernel ``[kh, kw]`` with its gain, as the layer applies it."""
        if self.separable:
            return torch.outer(self.kernel_y, self.kernel_x)
        return self.kernel_2d

    def forward(self, input: Tensor) -> Tensor:
        """Resample ``input`` [N, C, H, W]."""
        pad = self.pad
        if self.padding_mode != "zeros":
            input, pad = self._extend(input)
        kernel = (self.kernel_x, self.kernel_y) if self.separable else self.kernel_2d
        return upfirdn2d(input, kernel, self.up, self.down, pad)

    def extra_repr(self) -> str:
        taps = torch.tensor(self.taps, dtype=torch.float64, device="cpu")
        shown = (taps / taps.abs()[taps != 0].min()).round(decimals=4).tolist()
        parts = [f"resample_kernel={_short(shown)}"]
        for name in self._shown:
            x, y = getattr(self, name)
            parts.append(f"{name}={x if x == y else (x, y)}")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode!r}")
        return ", ".join(parts)

    def _build(self, device: torch.device | None, dtype: torch.dtype) -> None:
        """Register the kernel buffers, from the floats."""
        if self.separable:
            kernels = {
                name: [tap * gain for tap in self.taps]
                for name, gain in zip(("kernel_x", "kernel_y"), self.gain, strict=True)
            }
        else:
            gain = self.gain[0] * self.gain[1]
            kernels = {"kernel_2d": [[tap * gain for tap in row] for row in self.taps]}
        for name, values in kernels.items():
            kernel = torch.tensor(values, dtype=dtype, device=device)
            self.register_buffer(name, kernel, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Resample:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        buffer = self.kernel_x if self.separable else self.kernel_2d
        wide = buffer.dtype == torch.float64
        self._build(buffer.device, torch.float64 if wide else torch.float32)
        return self

    def _extend(self, input: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
        """Continue the image beyond its border by ``padding_mode``; what is left to pad."""
        x0, x1, y0, y1 = self.pad
        (up_x, up_y), mode = self.up, self.padding_mode
        left, right = geometry.border(x0, x1, up_x)
        top, bottom = geometry.border(y0, y1, up_y)
        height, width = input.shape[-2:]
        spare = 1 if mode == "reflect" else 0
        if mode != "replicate" and (
            max(left, right) > width - spare or max(top, bottom) > height - spare
        ):
            raise ValueError(
                f"padding_mode={mode!r} needs an input of at least "
                f"{max(top, bottom) + spare}x{max(left, right) + spare} (height x width), "
                f"got {height}x{width}"
            )
        if left or right or top or bottom:
            input = F.pad(input, (left, right, top, bottom), mode=mode)
        return input, (
            x0 - left * up_x,
            x1 - right * up_x,
            y0 - top * up_y,
            y1 - bottom * up_y,
        )

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
            gain = self.gain[0] * self.gain[1] if with_gain else 1
            ours = torch.tensor(self.taps, dtype=torch.float64, device="cpu")
            ours = gain * (torch.outer(ours, ours) if self.separable else ours)
            theirs = torch.as_tensor(stored).detach().to("cpu", torch.float64)
            while theirs.dim() > 2 and theirs.shape[0] == 1:
                theirs = theirs[0]
            if theirs.dim() == 1:
                theirs = torch.outer(theirs, theirs)
            if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=1e-3, atol=1e-4):
                error_msgs.append(
                    f"{prefix}{name} must hold the taps of this layer, {_short(ours.tolist())}, "
                    f"got {_short(theirs.tolist())}"
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[arg-type]


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
        pad = (
            *geometry.upsample_pad(taps.shape[-1], factors[0]),
            *geometry.upsample_pad(taps.shape[0], factors[1]),
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
        pad = (
            *geometry.downsample_pad(taps.shape[-1], factors[0]),
            *geometry.downsample_pad(taps.shape[0], factors[1]),
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
        pad = (
            *geometry.smooth_pad(taps.shape[-1], up[0], down[0], size[0]),
            *geometry.smooth_pad(taps.shape[0], up[1], down[1], size[1]),
        )
        super().__init__(taps, up, (1, 1), (1, 1), pad, padding_mode)
        self.upsample_factor, self.downsample_factor, self.kernel_size = up, down, size
        _warn_uneven_phases(self.taps, up)


def _warn_uneven_phases(taps: tuple[Any, ...], factor: tuple[int, int]) -> None:
    """Warn, once for the same taps and factor, when upsampling would leave a pattern."""
    separable = not isinstance(taps[0], tuple)
    even = (
        all(phases_sum_alike(taps, f) for f in factor)
        if separable
        else phases_sum_alike(taps, factor)
    )
    if even or (taps, factor) in _warned:
        return
    _warned.add((taps, factor))
    warnings.warn(
        f"the phases of resample_kernel do not sum alike at factor {max(factor)}, which leaves a "
        f"pattern on flat images; resample_layers.filters.design_resample_taps({max(factor)}) "
        "gives taps that do",
        UserWarning,
        stacklevel=3,
    )


def _short(values: Any) -> str:
    """Nested numbers in few characters."""
    if isinstance(values, list):
        return "[" + ", ".join(_short(value) for value in values) + "]"
    return f"{values:.6g}"
