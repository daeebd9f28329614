# SPDX-License-Identifier: BSD-3-Clause
"""The resampling layers, of images, signals and volumes: taps, padding, one call each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from . import geometry
from .buffers import FilterBuffers
from .filters import (
    Taps,
    centroid,
    design_rational_taps,
    deviation_from_rank_one,
    marginals,
    normalise_taps,
    phases_sum_alike,
)
from .ops.activation import upfirdn2d_bias_act
from .ops.arguments import as_factors
from .ops.border import MODES, extend
from .ops.dimensions import upfirdn1d, upfirdn3d
from .ops.upfirdn2d import upfirdn2d
from .values import check_bool, check_choice, shown

OPS: dict[int, Any] = {1: upfirdn1d, 2: upfirdn2d, 3: upfirdn3d}
PADDING_MODES = ("zeros", *MODES)
BUFFERS = ("kernel_x", "kernel_y", "kernel_z")  # of separable kernels
RANK_ONE = 4  # [eps of the buffers' dtype] from an outer product that counts as one
CHECKPOINT_KERNELS = {"kernel": True, "resample_filter": False}  # name: holds the gain
_warned: set[tuple[tuple[Any, ...], tuple[int, ...]]] = set()


class _Resample(FilterBuffers):
    """What the layers share: taps as Python floats, the buffers made of them, one call.

    ``taps`` are what the user gave, divided by their sum: 1-D for all axes, or rows ``[kh][kw]``.
    The gain (the upsampling factor of each axis) is folded into the buffers.

    ``separable`` says whether the buffers are taps of each axis. They are for 1-D taps, and for
    rows that are an outer product to the rounding of the buffers' dtype: the product of their
    marginals differs from them by at most 4 eps of that dtype, summed over all taps, relative to
    the sum of their magnitudes. So no result moves by more than 4 eps of the sum of
    ``|tap| * max |sample|``. A kernel that was rounded to float32 may be one in float32 and not in
    float64, so ``.double()`` may change ``separable``. A kernel of one row or one column stays as
    it is, for it takes one pass already.
    """

    dims: int  # of space: 1 for signals, 2 for images, 3 for volumes
    kernel_x: Tensor
    kernel_y: Tensor
    kernel_z: Tensor
    kernel_2d: Tensor
    _shown: tuple[str, ...]  # the attributes in the repr

    def __init__(
        self,
        taps: tuple[Any, ...],  # [taps] or [kh][kw], from normalise_taps
        gain: tuple[int, ...],  # of each axis, x first, as all that follows
        up: tuple[int, ...],
        down: tuple[int, ...],
        pad: tuple[int, ...],  # (x0, x1, y0, y1)
        padding_mode: str,
    ) -> None:
        super().__init__()
        check_choice("padding_mode", padding_mode, PADDING_MODES)
        self.taps = taps
        if _has_rows(taps):
            self._by_axis: tuple[Taps, ...] = marginals(taps)
            # A kernel of one row or column is one pass as it is
            thin = min(map(len, self._by_axis)) == 1
            self._deviation = math.inf if thin else deviation_from_rank_one(taps)
        else:
            self._by_axis, self._deviation = (taps,) * self.dims, 0.0
        self.gain, self.up, self.down, self.pad = gain, up, down, pad
        self.border = _pairs(map(geometry.border, pad[::2], pad[1::2], up))
        self.padding_mode = padding_mode
        self._register(self._floats_for(torch.float32))

    @property
    def separable(self) -> bool:
        """Whether the buffers are taps of each axis."""
        return "kernel_2d" not in self._floats

    @property
    def kernel(self) -> Tensor:
        """The kernel with its gain, as the layer applies it; of images it is ``[kh, kw]``."""
        return _outer(self._taps_by_axis()) if self.separable else self.kernel_2d

    @property
    def shift(self) -> tuple[float, ...]:
        """How far the layer's samples are shifted, in input pixels, for each axis, x first.

        Output sample ``n`` lies at ``(n + 0.5) * down / up - 0.5 + shift`` of the input, counted
        from the centre of its first pixel. Without a shift the two images cover each other. With a
        negative one each sample shows what lies a little before its place, so that the picture
        moves to higher indices.

        A sample lies where the weight of what it reads lies, so that of a ramp it holds the value
        at its position: at the middle of the tap window for symmetric taps, and off it by the
        taps' centroid for others. Upsampling gives the mean of its phases.

        The shift is 0 where the number of taps is even for even factors and odd for odd ones
        (taps symmetric). Otherwise it is ``-0.5 / up``: an odd pad goes before the image, as in
        BasicSR and NVIDIA's code. See :func:`resample_layers.geometry.shift`. The property tells
        of the taps that the layer was made with, not of a kernel that was put in their place.
        """
        return self._shift(self.up, self.down, self.pad[::2], (0,) * self.dims)

    def _shift(
        self,
        up: Sequence[int],
        down: Sequence[int],
        pad0: Sequence[int],
        more_taps: Sequence[int],  # of a symmetric filter beside the layer's own
    ) -> tuple[float, ...]:
        axes = zip(self._by_axis, up, down, pad0, more_taps, strict=True)
        return tuple(
            geometry.shift(len(taps) + more, u, d, p, centroid(taps))
            for taps, u, d, p, more in axes
        )

    def _taps_by_axis(self) -> tuple[Tensor, ...]:
        return tuple([getattr(self, name) for name in BUFFERS[: self.dims]])

    def forward(self, input: Tensor) -> Tensor:
        """Resample ``input``."""
        out: Tensor = OPS[self.dims](*self._call(input))
        return out

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, input: Tensor) -> Tensor: ...

    def _call(self, input: Tensor) -> tuple[Any, ...]:
        """The op's arguments: input, kernel, up, down, pad."""
        pad = self.pad
        if self.padding_mode != "zeros":
            input = extend(input, self.border, self.padding_mode)
            pad = tuple(p - self.border[i] * self.up[i // 2] for i, p in enumerate(pad))
        kernel: Any = self._taps_by_axis() if self.separable else self.kernel_2d
        return input, kernel[0] if self.dims == 1 else kernel, self.up, self.down, pad

    def extra_repr(self) -> str:
        parts = self._shown_kernel()
        for name in self._shown:
            values = getattr(self, name)
            parts.append(f"{name}={values if len(set(values)) > 1 else values[0]}")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode!r}")
        return ", ".join(parts)

    def _shown_kernel(self) -> list[str]:
        """The kernel in the repr."""
        rows = self.taps if _has_rows(self.taps) else [self.taps]
        unit = min(abs(tap) for row in rows for tap in row if tap)
        shown = [[round(tap / unit, 4) for tap in row] for row in rows]
        return [f"resample_kernel={_short(shown if _has_rows(self.taps) else shown[0])}"]

    def _floats_for(self, dtype: torch.dtype) -> dict[str, Any]:
        if self._deviation <= RANK_ONE * torch.finfo(dtype).eps:
            axes = zip(BUFFERS[: self.dims], self._by_axis, self.gain, strict=True)
            return {name: [tap * gain for tap in taps] for name, taps, gain in axes}
        gain = math.prod(self.gain)
        return {"kernel_2d": [[tap * gain for tap in row] for row in self.taps]}

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
                theirs, eps = _stored_kernel(stored, self.dims)
            # Torch raises an AssertionError for real tensors beside fake ones
            except (TypeError, ValueError, RuntimeError, AssertionError) as error:
                error_msgs.append(f"{prefix}{name} must hold taps, got {stored!r}: {error}")
                continue
            if not _equals_stored(ours, theirs, eps):
                error_msgs.append(
                    f"{prefix}{name} must hold the taps of this layer, {_short_taps(ours)}, "
                    f"got {_short_taps(theirs)}"
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[arg-type]

    def _as_stored(self, with_gain: bool) -> Tensor:
        """The kernel in float64 on the CPU, with or without the gain."""
        taps = torch.tensor(self.taps, dtype=torch.float64, device="cpu")
        kernel = taps if _has_rows(self.taps) else _outer([taps] * self.dims)
        return kernel * math.prod(self.gain) if with_gain else kernel

    def _normalise(self, resample_kernel: Any) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Taps with sum 1, and how many along each axis, x first."""
        taps = normalise_taps("resample_kernel", resample_kernel)
        if not _has_rows(taps):
            return taps, (len(taps),) * self.dims
        if self.dims != 2:
            raise ValueError(
                f"resample_kernel of a {type(self).__name__} must be [taps], for its kernel is "
                f"separable, got [kh, kw]: {shown(resample_kernel)}"
            )
        return taps, (len(taps[0]), len(taps))


class _Images(_Resample):
    """What the layers of images have alone."""

    dims = 2

    def bias_act(
        self,
        input: Tensor,  # [N, C, H, W]
        bias: Tensor | None = None,  # [C]
        noise: Tensor | None = None,  # [N or 1, 1, out_h, out_w]
        noise_strength: Tensor | None = None,  # one element
        negative_slope: float = 0.2,
        gain: float = math.sqrt(2.0),
        clamp: float | None = None,
        scale: Tensor | None = None,  # [N, C]
    ) -> Tensor:
        """Resample; then scale, noise, bias, leaky ReLU, gain and clamp in one pass over memory.

        See :func:`resample_layers.ops.upfirdn2d_bias_act` for the formula, shapes and errors. This
        is a method of its own, so hooks that are registered on the layer do not run.
        """
        input, kernel, up, down, pad = self._call(input)
        epilogue = (bias, noise, noise_strength)
        return upfirdn2d_bias_act(
            input, kernel, *epilogue, up, down, pad, negative_slope, gain, clamp, scale
        )


class _Upsample(_Resample):
    _shown = ("factor",)

    def __init__(
        self,
        resample_kernel: Any = (1, 3, 3, 1),
        factor: int | Sequence[int] = 2,
        padding_mode: str = "zeros",
    ) -> None:
        taps, sizes = self._normalise(resample_kernel)
        factors, ones = as_factors("factor", factor, self.dims), (1,) * self.dims
        pad = _pairs(map(geometry.upsample_pad, sizes, factors))
        super().__init__(taps, factors, factors, ones, pad, padding_mode)
        self.factor = factors
        _warn_uneven_phases(self.taps, factors)


class _Downsample(_Resample):
    _shown = ("factor",)

    def __init__(
        self,
        resample_kernel: Any = (1, 3, 3, 1),
        factor: int | Sequence[int] = 2,
        padding_mode: str = "zeros",
        ceil_mode: bool = False,
    ) -> None:
        check_bool("ceil_mode", ceil_mode)
        taps, sizes = self._normalise(resample_kernel)
        factors, ones = as_factors("factor", factor, self.dims), (1,) * self.dims
        axes = zip(sizes, factors, strict=True)
        pad = _pairs(geometry.downsample_pad(*axis, ceil_mode) for axis in axes)
        super().__init__(taps, ones, ones, factors, pad, padding_mode)
        self.factor, self.ceil_mode = factors, ceil_mode

    def extra_repr(self) -> str:
        return super().extra_repr() + (", ceil_mode=True" if self.ceil_mode else "")


class _Smooth(_Resample):
    _shown = ("upsample_factor", "downsample_factor", "kernel_size")

    def __init__(
        self,
        resample_kernel: Any = (1, 3, 3, 1),
        upsample_factor: int | Sequence[int] = 1,
        downsample_factor: int | Sequence[int] = 1,
        kernel_size: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
    ) -> None:
        taps, sizes = self._normalise(resample_kernel)
        up = as_factors("upsample_factor", upsample_factor, self.dims)
        down = as_factors("downsample_factor", downsample_factor, self.dims)
        size = as_factors("kernel_size", kernel_size, self.dims)
        if max(up) > 1 and max(down) > 1:
            raise ValueError(
                "only one of upsample_factor and downsample_factor may be above 1, got "
                f"upsample_factor={shown(upsample_factor)}, "
                f"downsample_factor={shown(downsample_factor)}"
            )
        after, ones = max(up) > 1, (1,) * self.dims
        axes = zip(sizes, up, down, size, strict=True)
        pad = _pairs(geometry.smooth_pad(*axis, after) for axis in axes)
        super().__init__(taps, up, ones, ones, pad, padding_mode)
        self.upsample_factor, self.downsample_factor, self.kernel_size = up, down, size
        _warn_uneven_phases(self.taps, up)

    @property
    def shift(self) -> tuple[float, ...]:
        """Where samples lie after the layer and the convolution beside it, as for the other layers.

        The shift of each axis in input pixels, x first: sample ``n`` of what the second of the two
        returns lies at ``(n + 0.5) * down / up - 0.5 + shift`` of what the first one takes, with
        ``upsample_factor`` and ``downsample_factor`` for ``up`` and ``down``.

        The convolution counts as centred: what it reads, or what a transposed one spreads, lies at
        the middle of its ``kernel_size`` taps.

        With symmetric taps the shift is 0 or ``-0.5 / up``, see
        :func:`resample_layers.geometry.smooth_pad`. Alone (``kernel_size=1``, no factor) the layer
        moves the image by half a pixel if the taps are even in number.
        """
        # Both filters as one: a transposed convolution without padding is the op with a first pad
        # of kernel_size - 1, a convolution without padding is the op with none.
        more = [size - 1 for size in self.kernel_size]
        after = max(self.upsample_factor) > 1
        pad0 = [p + (m if after else 0) for p, m in zip(self.pad[::2], more, strict=True)]
        return self._shift(self.upsample_factor, self.downsample_factor, pad0, more)


class _Rational(_Resample):
    _shown = ("up", "down")

    def __init__(
        self, up: int, down: int, resample_kernel: Any = None, padding_mode: str = "zeros"
    ) -> None:
        for name, factor in (("up", up), ("down", down)):
            if isinstance(factor, (tuple, list)):
                raise TypeError(f"{name} must be an int for all axes, got {name}={shown(factor)}")
        (up,), (down,) = as_factors("up", up, 1), as_factors("down", down, 1)
        divisor = math.gcd(up, down)
        up, down = up // divisor, down // divisor
        self._designed = resample_kernel is None
        if self._designed:
            resample_kernel = design_rational_taps(up, down)
        taps, sizes = self._normalise(resample_kernel)
        if up == down:
            taps, sizes = (1.0,), (1,) * self.dims
        factors = (up,) * self.dims, (down,) * self.dims
        super().__init__(
            taps, factors[0], *factors, _pairs(map(geometry.rational_pad, sizes)), padding_mode
        )

    def _shown_kernel(self) -> list[str]:
        return [] if self._designed else super()._shown_kernel()


class UpFirDnUpsample(_Images, _Upsample):
    """Upsample images by an integer factor with an FIR filter: ``[H, W] -> [H * f, W * f]``.

    1. Insert ``factor - 1`` zeros after each sample.
    2. Filter with the normalised kernel times ``factor ** 2``, padded so that the image stays
       centred.

    Gives BasicSR's numbers. Beyond BasicSR: factors and kernels may differ by axis (a non-square
    kernel pads each axis by its own length), padding modes, and the kernel follows the module's
    device and keeps full precision in half models.

    Args:
        resample_kernel: taps, 1-D (separable) or 2-D, of any sum but zero. The layer finds out
            whether a 2-D kernel is an outer product to the rounding of float32 (of float64 after
            ``.double()``). Such a kernel is applied along each axis, which is cheaper.
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


class UpFirDnDownsample(_Images, _Downsample):
    """Downsample images by an integer factor with an FIR filter: ``[H, W] -> [H // f, W // f]``.

    1. Filter with the normalised kernel, padded so that the image stays centred.
    2. Keep every ``factor``-th sample.

    Gives BasicSR's numbers; :class:`UpFirDnUpsample` says what goes beyond them.

    Args:
        resample_kernel: taps, 1-D (separable) or 2-D, of any sum but zero.
        factor: an int or ``(x, y)``.
        padding_mode: 'zeros', 'reflect', 'replicate' or 'circular'.
        ceil_mode: True rounds the size up, as in torch's pooling. All samples stay where they are,
            and one more follows where the factor does not divide the side. With 'reflect' and
            factor 2 these are the samples of antialiased-cnns' ``BlurPool``, and, with an odd
            number of taps, of timm's ``BlurPool2d``. The border behind the image is
            ``factor - 1`` samples wider, so 'reflect' and 'circular' need a larger image.

    Shape:
        - input: ``[N, C, H, W]``, float16, bfloat16, float32 or float64
        - output: ``[N, C, H // factor_y, W // factor_x]``; with ``ceil_mode``
          ``[N, C, ceil(H / factor_y), ceil(W / factor_x)]``

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


class UpFirDnSmooth(_Images, _Smooth):
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


class UpFirDnResample(_Images, _Rational):
    """Resample images by a rational rate: ``[H, W] -> [ceil(H up / down), ceil(W up / down)]``.

    :class:`UpFirDnResample1d` along both axes, which have one rate. What differs:
    ``resample_kernel`` may be 2-D.

    Shape:
        - input: ``[N, C, H, W]``
        - output: ``[N, C, ceil(H * up / down), ceil(W * up / down)]``

    Example:
        >>> import torch
        >>> UpFirDnResample(3, 2)(torch.ones(1, 3, 8, 7)).shape
        torch.Size([1, 3, 12, 11])
    """


class UpFirDnUpsample1d(_Upsample):
    """Upsample signals by an integer factor with an FIR filter: ``L -> L * f``.

    :class:`UpFirDnUpsample` along one axis. What differs: ``resample_kernel`` is 1-D, ``factor``
    an int, and the normalised taps are multiplied by ``factor``.

    Shape:
        - input: ``[N, C, L]``
        - output: ``[N, C, L * factor]``

    Example:
        The resampling around an activation of audio, ``down(act(up(x)))``; for Snake, see
        :class:`resample_layers.FilteredSnake`:

        >>> import torch
        >>> from resample_layers import filters
        >>> taps = filters.kaiser_sinc(0.25, 0.3, 12)
        >>> up = UpFirDnUpsample1d(taps, padding_mode="replicate")
        >>> down = UpFirDnDownsample1d(taps, padding_mode="replicate")
        >>> down(torch.sin(up(torch.ones(1, 8, 100)))).shape
        torch.Size([1, 8, 100])
    """

    dims = 1


class UpFirDnDownsample1d(_Downsample):
    """Downsample signals by an integer factor with an FIR filter: ``L -> L // f``.

    :class:`UpFirDnDownsample` along one axis. What differs: ``resample_kernel`` is 1-D and
    ``factor`` an int.

    Shape:
        - input: ``[N, C, L]``
        - output: ``[N, C, L // factor]``; with ``ceil_mode`` ``[N, C, ceil(L / factor)]``

    Example:
        >>> import torch
        >>> UpFirDnDownsample1d((1, 3, 3, 1))(torch.ones(1, 3, 8)).shape
        torch.Size([1, 3, 4])
    """

    dims = 1


class UpFirDnSmooth1d(_Smooth):
    """Smooth signals beside a strided convolution; the layer itself never changes the rate.

    :class:`UpFirDnSmooth` along one axis. What differs: ``resample_kernel`` is 1-D, and both
    factors and ``kernel_size`` are ints.

    Shape:
        - input: ``[N, C, L]``
        - output: ``[N, C, L + pad_0 + pad_1 - k + 1]``

    Example:
        >>> import torch
        >>> UpFirDnSmooth1d((1, 3, 3, 1))(torch.ones(1, 3, 8)).shape
        torch.Size([1, 3, 8])
    """

    dims = 1


class UpFirDnResample1d(_Rational):
    """Resample signals by a rational rate: ``L -> ceil(L * up / down)``.

    Gives the samples of scipy's ``resample_poly(input, up, down)``. The fraction is taken in lowest
    terms, and then:

    1. Insert ``up - 1`` zeros after each sample.
    2. Filter with the taps times ``up``.
    3. Keep every ``down``-th sample, from the first on, which lies where the first input sample
       lies. So sample ``n`` lies at ``n * down / up``, and the property ``shift`` is not 0.

    Nothing is computed for inserted zeros, nor for samples that are dropped.

    Args:
        up: the rate that is wanted, or any multiple, as 48000 for 44.1 to 48 kHz; >= 1.
        down: the rate that there is, or the same multiple, as 44100; >= 1.
        resample_kernel: taps of any sum but zero, which are divided by it; scipy takes its
            ``window`` as it is. None: scipy's, see
            :func:`resample_layers.filters.design_rational_taps`. Equal rates filter nothing, as in
            scipy.
        padding_mode: 'zeros', 'reflect', 'replicate' or 'circular': how the signal continues
            beyond its ends. 'zeros', 'replicate' and 'circular' are scipy's padtypes 'constant',
            'edge' and 'wrap'.

    Shape:
        - input: ``[N, C, L]``, float16, bfloat16, float32 or float64
        - output: ``[N, C, ceil(L * up / down)]``

    Raises:
        TypeError, ValueError: if an argument is at fault.

    Example:
        >>> import torch
        >>> UpFirDnResample1d(48000, 44100)(torch.ones(1, 2, 441)).shape
        torch.Size([1, 2, 480])

    Source of the formula: scipy.signal.resample_poly; pads in
    :func:`resample_layers.geometry.rational_pad`.
    """

    dims = 1


class UpFirDnUpsample3d(_Upsample):
    """Upsample volumes by an integer factor with an FIR filter: ``[D, H, W] -> [f D, f H, f W]``.

    :class:`UpFirDnUpsample` on three axes. What differs: ``resample_kernel`` is 1-D and filters all
    axes, with its normalised taps times ``factor`` on each; ``factor`` is an int or ``(x, y, z)``.
    An axis of factor 1 is filtered too, and an even number of taps moves it by half a sample;
    :func:`ops.upfirdn3d` with a tap of 1 for it leaves it alone.

    Shape:
        - input: ``[N, C, D, H, W]``
        - output: ``[N, C, D * factor_z, H * factor_y, W * factor_x]``

    Example:
        >>> import torch
        >>> UpFirDnUpsample3d((1, 3, 3, 1), 2)(torch.ones(1, 3, 5, 8, 8)).shape
        torch.Size([1, 3, 10, 16, 16])
    """

    dims = 3


class UpFirDnDownsample3d(_Downsample):
    """Downsample volumes by an integer factor with an FIR filter: each side becomes ``n // f``.

    :class:`UpFirDnDownsample` on three axes. What differs: ``resample_kernel`` is 1-D and filters
    all axes, those of factor 1 as at :class:`UpFirDnUpsample3d`; ``factor`` is an int or
    ``(x, y, z)``.

    Shape:
        - input: ``[N, C, D, H, W]``
        - output: ``[N, C, D // factor_z, H // factor_y, W // factor_x]``; with ``ceil_mode``
          rounded up

    Example:
        >>> import torch
        >>> UpFirDnDownsample3d((1, 3, 3, 1))(torch.ones(1, 3, 5, 8, 8)).shape
        torch.Size([1, 3, 2, 4, 4])
    """

    dims = 3


class UpFirDnSmooth3d(_Smooth):
    """Smooth volumes beside a strided convolution; the layer itself never changes the rate.

    :class:`UpFirDnSmooth` on three axes. What differs: ``resample_kernel`` is 1-D and filters all
    axes; factors and ``kernel_size`` are ints or ``(x, y, z)``.

    Shape:
        - input: ``[N, C, D, H, W]``
        - output: as :class:`UpFirDnSmooth`, of three axes

    Example:
        >>> import torch
        >>> UpFirDnSmooth3d((1, 3, 3, 1))(torch.ones(1, 3, 5, 8, 8)).shape
        torch.Size([1, 3, 5, 8, 8])
    """

    dims = 3


class UpFirDnResample3d(_Rational):
    """Resample volumes by a rational rate: each side becomes ``ceil(n * up / down)``.

    :class:`UpFirDnResample1d` along all axes, which have one rate.

    Shape:
        - input: ``[N, C, D, H, W]``
        - output: ``[N, C, ceil(D * up / down), ceil(H * up / down), ceil(W * up / down)]``

    Example:
        >>> import torch
        >>> UpFirDnResample3d(3, 2)(torch.ones(1, 3, 4, 6, 7)).shape
        torch.Size([1, 3, 6, 9, 11])
    """

    dims = 3


def _has_rows(taps: tuple[Any, ...]) -> bool:
    """Whether normalised taps are rows [kh][kw], not [taps]."""
    return isinstance(taps[0], tuple)


def _pairs(pairs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """((x0, x1), (y0, y1)) as (x0, x1, y0, y1)."""
    return tuple(side for pair in pairs for side in pair)


def _outer(taps: Sequence[Tensor]) -> Tensor:
    """The kernel of taps by axis, x first: [kw], [kh, kw] or [kd, kh, kw]."""
    kernel = taps[0]
    for more in taps[1:]:
        kernel = more.reshape(-1, *[1] * kernel.dim()) * kernel
    return kernel


def _stored_kernel(stored: Any, dims: int) -> tuple[Tensor, float]:
    """A checkpoint's filter on all axes in float64, and the resolution of the dtype it had."""
    # Without a device, a context such as torch.device("meta") would take the values away
    device = stored.device if isinstance(stored, Tensor) else "cpu"
    kernel = torch.as_tensor(stored, device=device).detach()
    eps = torch.finfo(kernel.dtype).eps if kernel.is_floating_point() else 0.0
    kernel = kernel.to("cpu", torch.float64)
    while kernel.dim() > dims and kernel.shape[0] == 1:
        kernel = kernel[0]
    return (_outer([kernel] * dims) if kernel.dim() == 1 else kernel), eps


def _equals_stored(ours: Tensor, theirs: Tensor, eps: float) -> bool:
    """Whether kernels are equal to the rounding of a stored dtype, which went through a few steps.

    Fake tensors have no values: of them the shapes alone are compared.
    """
    if theirs.shape != ours.shape:
        return False
    if FakeTensor in (type(ours), type(theirs)):
        return True
    return bool((theirs - ours).abs().max() <= max(1e-5, 4 * eps) * ours.abs().max())


def _warn_uneven_phases(taps: tuple[Any, ...], factors: tuple[int, ...]) -> None:
    """Warn, once for the same taps and factors, when upsampling would leave a pattern."""
    by_axis = marginals(taps) if _has_rows(taps) else (taps,) * len(factors)
    axes = zip(by_axis, factors, strict=True)
    uneven = [factor for line, factor in axes if not phases_sum_alike(line, factor)]
    if not uneven and _has_rows(taps) and not phases_sum_alike(taps, (factors[0], factors[1])):
        uneven = [max(factors)]  # alike along each axis, and not together
    if not uneven or (taps, factors) in _warned:
        return
    _warned.add((taps, factors))
    warnings.warn(
        f"the phases of resample_kernel do not sum alike at factor {uneven[0]}, which leaves a "
        f"pattern on flat images; resample_layers.filters.design_resample_taps({uneven[0]}) gives "
        "taps that do",
        UserWarning,
        stacklevel=3,
    )


def _short_taps(kernel: Tensor) -> str:
    """The numbers of a kernel; of a fake tensor, which has none, the shape."""
    is_fake = isinstance(kernel, FakeTensor)
    return f"shape {tuple(kernel.shape)}" if is_fake else _short(kernel.tolist())


def _short(values: Any) -> str:
    """Nested numbers in few characters."""
    if isinstance(values, list):
        return "[" + ", ".join(_short(value) for value in values) + "]"
    return f"{values:.6g}"
