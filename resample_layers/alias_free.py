# SPDX-License-Identifier: BSD-3-Clause
"""Activations between an upsampling and a downsampling filter, as layers of images and signals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import geometry
from .buffers import FilterBuffers
from .filters import design_lowpass, design_radial_lowpass, kaiser_sinc
from .ops.arguments import _as_float, as_pads
from .ops.filtered_act import filtered_lrelu, filtered_snake
from .ops.modes import is_tracing
from .values import as_count, check_bool, check_choice

PADDING_MODES = ("zeros", "replicate")
HALF_WIDTH = math.sqrt(2.0) - 1  # of the transition, in units of the cutoff: StyleGAN3's


class _Filtered(FilterBuffers):
    """What the layers share: two filters as Python floats, and the buffers made of them.

    The gain ``up`` of each axis is folded into the buffer of the first filter. Where a factor is
    1, its filter is None.
    """

    dims: int  # of space: 1 for signals, 2 for images
    up_kernel: Tensor | None
    down_kernel: Tensor | None

    def __init__(
        self,
        channels: int,
        up: int,
        down: int,
        up_taps: Sequence[float] | None,
        down_taps: Sequence[Any] | None,  # [taps] or rows [kh][kw]
        padding_mode: str,
    ) -> None:
        super().__init__()
        check_choice("padding_mode", padding_mode, PADDING_MODES)
        self.channels, self.up, self.down = channels, up, down
        self.up_taps, self.down_taps, self.padding_mode = up_taps, down_taps, padding_mode
        floats: dict[str, Any] = {}
        if up_taps is not None:
            floats["up_kernel"] = [tap * up for tap in up_taps]
        if down_taps is not None:
            floats["down_kernel"] = down_taps
        self._register(floats)
        for name in ("up_kernel", "down_kernel"):
            if name not in self._buffers:
                self.register_buffer(name, None)

    def _check_channels(self, input: Tensor) -> None:
        """No tensor, or another rank, is for the op to refuse."""
        if not isinstance(input, Tensor) or input.dim() != 2 + self.dims or is_tracing():
            return
        if input.shape[1] != self.channels:
            raise ValueError(
                f"input must have the channels of the layer, {self.channels}, got "
                f"{input.shape[1]}: shape {tuple(input.shape)}"
            )

    def extra_repr(self) -> str:
        parts = [f"{self.channels}, up={self.up}, down={self.down}"]
        for name, taps in (("up_taps", self.up_taps), ("down_taps", self.down_taps)):
            if taps is not None:
                size = f"{len(taps)}x{len(taps)}" if isinstance(taps[0], tuple) else len(taps)
                parts.append(f"{name}={size}")
        return ", ".join([*parts, f"padding_mode={self.padding_mode!r}"])


class FilteredLeakyReLU(_Filtered):
    """Bias and leaky ReLU of images without aliasing, as in StyleGAN3.

    1. Add the bias; upsample by ``up`` with a low-pass filter.
    2. Apply the leaky ReLU, the gain and the clamp, at the higher sampling rate.
    3. Downsample by ``down`` with a second low-pass filter, which removes what the activation has
       put above the band of the output.

    The filters are designed from their cutoffs, see
    :func:`resample_layers.filters.design_lowpass`. A filter has ``filter_size`` taps for each unit
    of its factor, and there is no filter where its factor is 1. The buffers ``up_kernel`` and
    ``down_kernel`` follow the module's device and keep full precision in half models. They are not
    in the ``state_dict``.

    Args:
        channels: number of channels of the input.
        up: factor of the first filter, for both axes.
        down: factor of the second filter, for both axes.
        bias: whether there is a parameter ``bias``, which starts at zero.
        filter_size: number of taps for each unit of a factor, >= 1; StyleGAN3's is 6.
        sampling_rate: sampling rate of the input, in any unit; the other frequencies have the same
            unit. The output has the rate ``sampling_rate * up / down``.
        in_cutoff: where the response of the first filter is one half. None: half of the input's
            sampling rate.
        in_half_width: half of the first filter's transition from pass band to stop band. None:
            ``sqrt(2) - 1`` times the cutoff.
        out_cutoff, out_half_width: the same for the second filter. None: as above, of the output's
            sampling rate.
        radial: whether the second filter is the radially symmetric one of StyleGAN3-R, see
            :func:`resample_layers.filters.design_radial_lowpass`.
        negative_slope: slope of the leaky ReLU for negative values, >= 0; 1 is linear.
        gain: factor after the activation, > 0.
        clamp: largest magnitude of the activated signal, > 0; None: none. StyleGAN3's is 256.
        pad: samples around the zero-inserted input, ``(before, after)`` for both axes or
            ``(x0, x1, y0, y1)``; negative values crop. None: the pads that keep the image in place
            and give the size below.
        padding_mode: 'zeros' or 'replicate': how the image continues beyond its border.

    Shape:
        - input: ``[N, channels, H, W]``, float16, bfloat16, float32 or float64
        - output: ``[N, channels, H * up // down, W * up // down]``, or what ``pad`` makes of it

    Raises:
        TypeError, ValueError: if an argument is at fault.

    Example:
        >>> import torch
        >>> FilteredLeakyReLU(3)(torch.ones(1, 3, 16, 16)).shape
        torch.Size([1, 3, 16, 16])

        A layer of StyleGAN3-R that goes from 16 to 32 samples:

        >>> layer = FilteredLeakyReLU(
        ...     3, up=4, sampling_rate=16, in_cutoff=4, in_half_width=4, out_cutoff=7,
        ...     out_half_width=9, radial=True, clamp=256.0,
        ... )
        >>> layer
        FilteredLeakyReLU(3, up=4, down=2, up_taps=24, down_taps=12x12, padding_mode='zeros')

    Source of the formula: Karras et al., Alias-Free Generative Adversarial Networks, 2021; pads in
    :func:`resample_layers.geometry.filtered_pad`.
    """

    dims = 2
    bias: Tensor | None

    def __init__(
        self,
        channels: int,
        up: int = 2,
        down: int = 2,
        bias: bool = True,
        filter_size: int = 6,
        sampling_rate: float = 1.0,
        in_cutoff: float | None = None,
        in_half_width: float | None = None,
        out_cutoff: float | None = None,
        out_half_width: float | None = None,
        radial: bool = False,
        negative_slope: float = 0.2,
        gain: float = math.sqrt(2.0),
        clamp: float | None = None,
        pad: Sequence[int] | None = None,
        padding_mode: str = "zeros",
    ) -> None:
        filter_size = as_count("filter_size", filter_size, 1)
        channels, up, down = _as_counts(channels, up, down)
        check_bool("bias", bias)
        check_bool("radial", radial)
        in_rate = _as_float("sampling_rate", sampling_rate)
        in_band = _band("in", in_rate, in_cutoff, in_half_width)
        out_band = _band("out", in_rate * up / down, out_cutoff, out_half_width)
        rate, design = in_rate * up, design_radial_lowpass if radial else design_lowpass
        up_taps = _lowpass("in", design_lowpass, filter_size, up, in_band, rate)
        down_taps = _lowpass("out", design, filter_size, down, out_band, rate)
        super().__init__(channels, up, down, up_taps, down_taps, padding_mode)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.negative_slope = _as_float("negative_slope", negative_slope, zero=True)
        self.gain = _as_float("gain", gain)
        self.clamp = None if clamp is None else _as_float("clamp", clamp)
        if pad is None:
            pad = geometry.filtered_pad(len(up_taps or (1,)), len(down_taps or (1,)), up, down)
        self.pad = as_pads(pad)

    def forward(self, input: Tensor) -> Tensor:
        """Upsample, activate, downsample."""
        self._check_channels(input)
        return filtered_lrelu(
            input, self.up_kernel, self.down_kernel, self.bias, self.up, self.down, self.pad,
            self.negative_slope, self.gain, self.clamp, padding_mode=self.padding_mode,
        )  # fmt: skip

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, input: Tensor) -> Tensor: ...


class FilteredSnake(_Filtered):
    """Snake, ``x + sin(alpha x) ** 2 / alpha``, of signals without aliasing, as in BigVGAN.

    1. Upsample by ``up`` with a low-pass filter.
    2. Apply Snake, with an ``alpha`` for each channel, at the higher sampling rate.
    3. Downsample by ``down`` with a second low-pass filter.

    The filters are BigVGAN's, see :func:`resample_layers.filters.kaiser_sinc`, with the cutoff
    ``0.5 / factor`` and the half width ``0.6 / factor``; there is none where its factor is 1. With
    both factors 2 the layer is BigVGAN's ``Activation1d``. With larger ones the signal stays in
    place here, and moves there. The buffers ``up_kernel`` and ``down_kernel`` follow the module's
    device and keep full precision in half models. They are not in the ``state_dict``;
    ``resample_layers.compat.bigvgan`` has modules with the keys of BigVGAN's checkpoints.

    Args:
        channels: number of channels of the input.
        alpha: the value at which the parameter ``alpha`` starts, > 0.
        log_scale: whether the parameter holds the logarithm of alpha, so that alpha stays
            positive.
        up: factor of the first filter.
        down: factor of the second.
        up_numtaps, down_numtaps: number of taps of each filter, at least its factor. None: 6 times
            the factor.
        padding_mode: 'replicate' or 'zeros': how the signal, and the activated signal, continue
            beyond their ends.

    Shape:
        - input: ``[N, channels, L]``, float16, bfloat16, float32 or float64
        - output: ``[N, channels, ceil(L * up / down)]``

    Raises:
        TypeError, ValueError: if an argument is at fault.

    Example:
        >>> import torch
        >>> FilteredSnake(8)(torch.ones(1, 8, 100)).shape
        torch.Size([1, 8, 100])

    Source of the formula: Lee et al., BigVGAN: A Universal Neural Vocoder, 2023; Snake: Ziyin et
    al., Neural Networks Fail to Learn Periodic Functions and How to Fix It, 2020.
    """

    dims = 1

    def __init__(
        self,
        channels: int,
        alpha: float = 1.0,
        log_scale: bool = False,
        up: int = 2,
        down: int = 2,
        up_numtaps: int | None = None,
        down_numtaps: int | None = None,
        padding_mode: str = "replicate",
    ) -> None:
        channels, up, down = _as_counts(channels, up, down)
        check_bool("log_scale", log_scale)
        up_taps, down_taps = (
            _sinc_taps(name, factor, numtaps)
            for name, factor, numtaps in (
                ("up_numtaps", up, up_numtaps),
                ("down_numtaps", down, down_numtaps),
            )
        )
        super().__init__(channels, up, down, up_taps, down_taps, padding_mode)
        start = _as_float("alpha", alpha)
        self.log_scale = log_scale
        self.alpha = nn.Parameter(torch.full((channels,), math.log(start) if log_scale else start))
        self.pad = geometry.upsample_pad(len(up_taps or (1,)), up)
        self.down_pad = geometry.downsample_pad(len(down_taps or (1,)), down, ceil_mode=True)

    def forward(self, input: Tensor) -> Tensor:
        """Upsample, activate, downsample."""
        return self._activate(input, self.alpha, None)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, input: Tensor) -> Tensor: ...

    def _activate(self, input: Tensor, alpha: Tensor, beta: Tensor | None) -> Tensor:
        self._check_channels(input)
        alpha = self._scaled(alpha)
        beta = None if beta is None else self._scaled(beta)
        return filtered_snake(
            input, alpha, beta, self.up_kernel, self.down_kernel, None, self.up, self.down,
            self.pad, self.down_pad, self.padding_mode,
        )  # fmt: skip

    def _scaled(self, parameter: Tensor) -> Tensor:
        return exponential(parameter) if self.log_scale else parameter

    def extra_repr(self) -> str:
        return super().extra_repr() + (", log_scale=True" if self.log_scale else "")


class FilteredSnakeBeta(FilteredSnake):
    """SnakeBeta, ``x + sin(alpha x) ** 2 / beta``, of signals without aliasing, as in BigVGAN.

    :class:`FilteredSnake` with a second parameter, ``beta``, which starts where ``alpha`` does.

    Shape:
        - input: ``[N, channels, L]``, float16, bfloat16, float32 or float64
        - output: ``[N, channels, ceil(L * up / down)]``

    Raises:
        TypeError, ValueError: if an argument is at fault.

    Example:
        >>> import torch
        >>> layer = FilteredSnakeBeta(8, log_scale=True)
        >>> layer(torch.ones(1, 8, 100)).shape, sorted(layer.state_dict())
        (torch.Size([1, 8, 100]), ['alpha', 'beta'])

    Source of the formula: Lee et al., BigVGAN: A Universal Neural Vocoder, 2023.
    """

    def __init__(
        self,
        channels: int,
        alpha: float = 1.0,
        log_scale: bool = False,
        up: int = 2,
        down: int = 2,
        up_numtaps: int | None = None,
        down_numtaps: int | None = None,
        padding_mode: str = "replicate",
    ) -> None:
        sizes = up_numtaps, down_numtaps
        super().__init__(channels, alpha, log_scale, up, down, *sizes, padding_mode)
        self.beta = nn.Parameter(self.alpha.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        """Upsample, activate, downsample."""
        return self._activate(input, self.alpha, self.beta)


def exponential(parameter: Tensor) -> Tensor:
    """The exponential, of half types in float32: rounding it would move the frequency."""
    return parameter.to(torch.promote_types(parameter.dtype, torch.float32)).exp()


def _as_counts(channels: int, up: int, down: int) -> tuple[int, int, int]:
    return as_count("channels", channels, 0), as_count("up", up, 1), as_count("down", down, 1)


def _sinc_taps(name: str, factor: int, numtaps: int | None) -> tuple[float, ...] | None:
    """BigVGAN's filter for a factor; None for 1."""
    numtaps = 6 * factor if numtaps is None else numtaps
    numtaps = as_count(name, numtaps, factor)
    return kaiser_sinc(0.5 / factor, 0.6 / factor, numtaps) if factor > 1 else None


def _band(
    side: str, sampling_rate: float, cutoff: float | None, half_width: float | None
) -> tuple[float, float]:
    """The cutoff and the width of a transition; None: the defaults for the sampling rate."""
    cutoff = sampling_rate / 2 if cutoff is None else _as_float(f"{side}_cutoff", cutoff)
    half = HALF_WIDTH * cutoff if half_width is None else half_width
    return cutoff, 2 * _as_float(f"{side}_half_width", half)


def _lowpass(
    side: str,
    design: Callable[..., Any],
    filter_size: int,
    factor: int,
    band: tuple[float, float],
    sampling_rate: float,
) -> Any:
    """A filter of StyleGAN3; None for the factor 1. Its errors name the layer's arguments."""
    if factor == 1:
        return None
    try:
        return design(filter_size * factor, *band, sampling_rate)
    except ValueError as error:
        raise ValueError(f"{side}_cutoff and {side}_half_width make no filter: {error}") from None
