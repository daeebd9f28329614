# SPDX-License-Identifier: BSD-3-Clause
"""StyleGAN3's generator, configurations T and R, and the plan of its layers.

Every signal of the network stands for a continuous one: layers are planned in frequencies, and an
activation is a filtered one, :class:`resample_layers.FilteredLeakyReLU`. What a layer does then
moves (T) and rotates (R) with the input.

Source of all formulas and numbers: Karras et al., Alias-Free Generative Adversarial Networks, 2021,
sections 3 and C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from resample_layers import FilteredLeakyReLU

from .blocks import ModulatedConv2d, demodulate
from .inputs import FourierInput
from .styles import StyledGenerator, check_noise, check_resolution, half_sides

Kind = Literal["t", "r"]
KERNEL_SIZES: dict[str, int] = {"t": 3, "r": 1}  # of the convolutions; the last one has 1
WIDTHS: dict[str, int] = {"t": 1, "r": 2}  # R has more channels, since its convolutions are small

LAYERS = 14  # and to-RGB after them
CRITICAL = 2  # of the layers, the last ones, are critically sampled, and so is to-RGB
FIRST_CUTOFF = 2.0  # waves for each image width
FIRST_STOPBAND = 2.0**2.1
LAST_STOPBAND = 2.0**0.3  # in units of the last cutoff
MARGIN = 10  # pixels around the image, so that what the borders do stays outside
FILTER_SIZE = 6  # taps for each unit of a factor
OVERSAMPLING = 2  # of the activation
OUTPUT_SCALE = 0.25
MAGNITUDE_DECAY = 0.999  # unless training sets another


class LayerPlan(NamedTuple):
    """The numbers of one layer: of its input, its output, and the filters between.

    Sizes are in pixels, with the margin. Sampling rates are in pixels, cutoffs and half widths in
    waves, for each image width.
    """

    in_channels: int
    out_channels: int
    kernel_size: int
    in_size: int
    out_size: int
    in_sampling_rate: int
    out_sampling_rate: int
    in_cutoff: float
    out_cutoff: float
    in_half_width: float
    out_half_width: float
    up: int
    down: int
    up_taps: int
    down_taps: int
    radial: bool
    pad: tuple[int, int]
    critical: bool
    to_rgb: bool


def cutoffs_and_stopbands(resolution: int) -> list[tuple[float, float]]:
    """What each layer's output keeps, and where its stop band begins: 14 layers and to-RGB.

    Both grow geometrically from the first layer to the first critically sampled one, and stay.
    """
    last = resolution / 2
    bands = []
    for n in range(LAYERS + 1):
        t = min(n / (LAYERS - CRITICAL), 1.0)
        cutoff = FIRST_CUTOFF * (last / FIRST_CUTOFF) ** t
        stopband = FIRST_STOPBAND * (last * LAST_STOPBAND / FIRST_STOPBAND) ** t
        bands.append((cutoff, stopband))
    return bands


def layer_channels(
    resolution: int, kind: Kind = "t", channel_multiplier: float = 2.0, channel_max: int = 512
) -> list[int]:
    """Channels of the 14 layers: ``min(channel_max, 16384 * channel_multiplier / side)``.

    A layer's side is twice its cutoff, and the number is rounded. R has both factors doubled.

    Raises:
        ValueError: if ``resolution`` is no power of two >= 8, ``kind`` is not 't' or 'r',
            ``channel_multiplier`` is not finite, or a layer would have no channel.

    Example:
        >>> layer_channels(256)
        [512, 512, 512, 512, 512, 512, 512, 512, 512, 362, 256, 181, 128, 128]
    """
    check_resolution(resolution)
    check_kind(kind)
    if not math.isfinite(channel_multiplier):
        raise ValueError(f"channel_multiplier must be finite, got {channel_multiplier}")
    base, most = WIDTHS[kind] * 16384 * channel_multiplier, WIDTHS[kind] * channel_max
    bands = cutoffs_and_stopbands(resolution)[:LAYERS]
    channels = [round(min(most, base / (2 * cutoff))) for cutoff, _ in bands]
    if min(channels) < 1:
        raise ValueError(
            "channel_multiplier and channel_max must leave a channel in every layer, got "
            f"channel_multiplier={channel_multiplier}, channel_max={channel_max}: {channels}"
        )
    return channels


def plan_layers(
    resolution: int,
    kind: Kind,
    channels: Sequence[int],  # of the 14 layers
    image_channels: int = 3,
) -> list[LayerPlan]:
    """The 14 layers and to-RGB, from the side of the images.

    - The sampling rate is the smallest power of two that reaches twice the stop band, and at most
      the resolution. At a critically sampled layer that is twice the cutoff, without room for a
      transition.
    - The half width of the transition reaches from the cutoff to half of the sampling rate, or to
      the stop band where that is further.
    - The activation has twice the larger of both sampling rates; to-RGB has none.
    - A convolution pads its input by ``kernel_size - 1``, so that all of its output that is not
      zero is there: ``in_size + kernel_size - 1`` pixels. The pad brings the filters' output to
      ``out_size``, and half of it goes to each side, where a sample that is followed by its zeros
      counts as lying in their middle: ``up`` samples more go before than after.

    Raises:
        ValueError: if an argument is out of its range.
    """
    check_resolution(resolution)
    check_kind(kind)
    if len(channels) != LAYERS or min(channels) < 1:
        raise ValueError(
            f"channels must be {LAYERS} numbers >= 1, one for each layer, got {list(channels)}"
        )
    bands = cutoffs_and_stopbands(resolution)
    rates = [2 ** math.ceil(math.log2(min(2 * stopband, resolution))) for _, stopband in bands]
    half_widths = [
        max(stopband, rate / 2) - cutoff
        for (cutoff, stopband), rate in zip(bands, rates, strict=True)
    ]
    sizes = [rate + 2 * MARGIN for rate in rates]
    sizes[LAYERS - 1 :] = [resolution, resolution]
    widths = [*channels, image_channels]
    plans = []
    for n in range(LAYERS + 1):
        before, to_rgb, critical = max(n - 1, 0), n == LAYERS, n >= LAYERS - CRITICAL
        kernel_size = 1 if to_rgb else KERNEL_SIZES[kind]
        rate = max(rates[before], rates[n]) * (1 if to_rgb else OVERSAMPLING)
        up, down = rate // rates[before], rate // rates[n]
        up_taps, down_taps = (1 if factor == 1 else FILTER_SIZE * factor for factor in (up, down))
        given = (sizes[before] + kernel_size - 1) * up
        total = (sizes[n] - 1) * down + up_taps + down_taps - 1 - given
        first = (total + up) // 2
        plans.append(
            LayerPlan(
                in_channels=widths[before],
                out_channels=widths[n],
                kernel_size=kernel_size,
                in_size=sizes[before],
                out_size=sizes[n],
                in_sampling_rate=rates[before],
                out_sampling_rate=rates[n],
                in_cutoff=bands[before][0],
                out_cutoff=bands[n][0],
                in_half_width=half_widths[before],
                out_half_width=half_widths[n],
                up=up,
                down=down,
                up_taps=up_taps,
                down_taps=down_taps,
                radial=kind == "r" and not critical,
                pad=(first, total - first),
                critical=critical,
                to_rgb=to_rgb,
            )
        )
    return plans


def check_kind(kind: str) -> None:
    if kind not in KERNEL_SIZES:
        raise ValueError(f"kind must be 't' or 'r', got {kind!r}")


class FilteredConv(nn.Module):
    """Modulated convolution, bias and filtered leaky ReLU: one layer of the generator.

    The convolution pads by ``kernel_size - 1``. Its input is divided by the root of the buffer
    ``magnitude``, a moving average of the input's mean square, which brings it to unit variance.
    Training mode alone updates it: ``magnitude`` keeps the share ``magnitude_decay`` of itself at
    each call. To-RGB is linear, without demodulation and filters.

    The original divides weights and styles by their root mean square first. Demodulation undoes
    that, but for its epsilon of 1e-8, so it is left out here; float16 has its own scaling in
    :class:`ModulatedConv2d`.

    Args:
        plan: the numbers of the layer.
        style_dim: length of the style.
        clamp: largest magnitude of the activated signal; None for none.

    Shape:
        - input: ``[N, in_channels, in_size, in_size]``; style: ``[N, style_dim]``
        - output: ``[N, out_channels, out_size, out_size]``
    """

    magnitude: Tensor

    def __init__(self, plan: LayerPlan, style_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.plan, self.magnitude_decay = plan, MAGNITUDE_DECAY
        self.conv = ModulatedConv2d(
            plan.in_channels,
            plan.out_channels,
            plan.kernel_size,
            style_dim,
            demodulate=not plan.to_rgb,
            padding=plan.kernel_size - 1,
        )
        self.activate = FilteredLeakyReLU(
            plan.out_channels,
            plan.up,
            plan.down,
            filter_size=FILTER_SIZE,
            sampling_rate=plan.in_sampling_rate,
            in_cutoff=plan.in_cutoff,
            in_half_width=plan.in_half_width,
            out_cutoff=plan.out_cutoff,
            out_half_width=plan.out_half_width,
            radial=plan.radial,
            negative_slope=1.0 if plan.to_rgb else 0.2,
            gain=1.0 if plan.to_rgb else math.sqrt(2.0),
            clamp=clamp,
            pad=plan.pad,
        )
        self.register_buffer("magnitude", torch.ones(()))

    def forward(self, input: Tensor, style: Tensor) -> Tensor:
        if self.training:
            square = input.detach().to(self.magnitude.dtype).square().mean()
            self.magnitude.lerp_(square, 1 - self.magnitude_decay)
        out = demodulate(*self.conv.convolve(input, style, self.magnitude.rsqrt()))
        return self.activate(out)


class AliasFreeGenerator(StyledGenerator):
    """StyleGAN3's generator with its mapping network.

    Fourier features, 14 layers of :class:`FilteredConv`, and one that makes colours. The first
    style moves and rotates the features, and each layer has one of its own. There is no noise.

    Args:
        resolution: side of the images, a power of two >= 8.
        style_dim: length of ``z``, ``w`` and styles.
        mapping_layers: depth of the mapping network.
        image_channels: 3 for RGB, 1 for grey.
        kind: 't' moves with its input; 'r' rotates too, by 1x1 convolutions and radial filters.
        channels: channels of the 14 layers; default :func:`layer_channels`.
        mapping_lr: learning-rate multiplier of the mapping network.
        clamp: limit of what each layer gives, to both sides; None for none.

    Shape:
        - input ``z``: ``[N, style_dim]``
        - output: ``[N, image_channels, resolution, resolution]``, pixels about [-1, 1]

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> import torch
        >>> generator = AliasFreeGenerator(16, style_dim=8, channels=[4] * 14)
        >>> generator(torch.randn(2, 8)).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        resolution: int,
        style_dim: int = 512,
        mapping_layers: int = 2,
        image_channels: int = 3,
        kind: Kind = "t",
        channels: Sequence[int] | None = None,
        mapping_lr: float = 0.01,
        clamp: float | None = 256.0,
    ) -> None:
        sizes = style_dim, mapping_layers, image_channels
        super().__init__(resolution, LAYERS + 2, *sizes, mapping_lr, clamp)
        channels = layer_channels(resolution, kind) if channels is None else list(channels)
        self.kind, self.channels = kind, channels
        self.plans = plans = plan_layers(resolution, kind, channels, image_channels)
        first = plans[0]
        options: dict[str, Any] = {"sampling_rate": first.in_sampling_rate}
        options |= {"bandwidth": first.in_cutoff, "style_dim": style_dim}
        self.input = FourierInput(first.in_channels, first.in_size, **options)
        self.layers = nn.ModuleList(FilteredConv(plan, style_dim, clamp) for plan in plans[:-1])
        self.to_rgb = FilteredConv(plans[-1], style_dim, clamp)

    def synthesis(
        self,
        styles: Tensor,  # [N, num_styles, style_dim]
        noise: Sequence[Tensor] | None = None,  # none, or an empty list
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        check_noise(noise, 0)
        w = styles.unbind(1)
        x = self.input(w[0])
        for layer, style in zip((*self.layers, self.to_rgb), w[1:], strict=True):
            if dtype is not None and layer.plan.out_sampling_rate in half_sides(self.resolution):
                x = x.to(dtype)
            x = layer(x, style)
        return x.to(styles.dtype) * OUTPUT_SCALE

    def fixed_noise(self) -> list[Tensor]:
        """None: an empty list."""
        return []

    def set_magnitude_decay(self, decay: float) -> None:
        """Set what the moving averages of all layers keep of themselves at each call."""
        for layer in (*self.layers, self.to_rgb):
            layer.magnitude_decay = decay
