# SPDX-License-Identifier: BSD-3-Clause
"""What generator and discriminator are made of.

All weights are *equalised*: stored with unit variance and multiplied by ``1 / sqrt(fan_in)`` when
used, so that one learning rate suits every layer.

Convolutions compute in the dtype of their input, whatever that of the weights: so a network in
float32 has layers in float16 or bfloat16 by a cast of what it gives them. Styles, noise, biases and
the images stay in the dtype of the weights.

Source of the formulas: Karras et al., StyleGAN2, 2020; equalised learning rate, pixel norm and
minibatch standard deviation: Karras et al., Progressive Growing of GANs, 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resample_layers import UpFirDnDownsample, UpFirDnSmooth, UpFirDnUpsample
from resample_layers.ops import FusedLeakyReLU, bias_act, fused_leaky_relu

Taps = Sequence[Any]
BINOMIAL: Taps = (1, 3, 3, 1)


class PixelNorm(nn.Module):
    """Scale every vector along dimension 1 to a mean square of one.

    Shape:
        - input, output: ``[N, C, ...]``
    """

    def forward(self, input: Tensor) -> Tensor:
        return input * torch.rsqrt(input.square().mean(1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """An equalised linear layer, with a leaky ReLU where ``activate`` is true.

    Args:
        in_features, out_features: sizes.
        bias_init: the bias's first value.
        lr_multiplier: the layer learns as if the learning rate were multiplied by this. Weight
            and bias are stored divided by it.
        activate: apply bias, leaky ReLU and gain in one call.

    Shape:
        - input: ``[N, in_features]``
        - output: ``[N, out_features]``
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.scale = lr_multiplier / math.sqrt(in_features)
        self.lr_multiplier = lr_multiplier
        self.activate = activate

    def forward(self, input: Tensor) -> Tensor:
        bias = self.bias * self.lr_multiplier
        if self.activate:
            return fused_leaky_relu(F.linear(input, self.weight * self.scale), bias)
        return F.linear(input, self.weight * self.scale, bias)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"{in_features}, {out_features}, lr_multiplier={self.lr_multiplier:g}"


class EqualConv2d(nn.Module):
    """An equalised convolution without bias, whose output is multiplied by ``gain``.

    Shape:
        - input: ``[N, in_channels, H, W]``
        - output: ``[N, out_channels, (H + 2 * padding - kernel_size) // stride + 1, ...]``
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.randn(shape))
        self.scale = gain / math.sqrt(in_channels * kernel_size**2)
        self.stride, self.padding = stride, padding

    def forward(self, input: Tensor) -> Tensor:
        weight = (self.weight * self.scale).to(input.dtype)
        return F.conv2d(input, weight, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        out_channels, in_channels, size, _ = self.weight.shape
        return f"{in_channels}, {out_channels}, {size}, stride={self.stride}"


# Generator


class ModulatedConv2d(nn.Module):
    """A convolution whose weights are scaled, for each sample, by what its style says.

    1. An affine layer turns the style into one factor per input channel.
    2. The weights are multiplied by it, and each output channel's weights then divided by their
       norm (demodulation), which keeps unit variance at the output for unit variance at the input.
    3. The sample is convolved with its own weights.

    Scaling the weights of an input channel is scaling that channel, and dividing the weights of an
    output channel is dividing that channel. So the activations are scaled instead, and the whole
    batch shares one convolution: :meth:`convolve` scales what goes in, and :func:`demodulate` what
    comes out; :class:`StyledConv` does the latter in the pass that follows. A 1x1 convolution is
    one product of matrices for each sample, and there the weights are scaled, which are few beside
    the activations.

    Args:
        in_channels, out_channels, kernel_size: of the convolution; ``kernel_size`` is odd.
        style_dim: length of the style.
        demodulate: divide by the norm of the weights.
        resample: ``"up"`` doubles the resolution (transposed convolution of stride 2, then
            :class:`UpFirDnSmooth`), ``"down"`` halves it (smooth, then stride 2), None keeps it.
        resample_kernel: taps of the smoothing.
        padding: zeros around the input where ``resample`` is None; None for what keeps its size.

    Shape:
        - input: ``[N, in_channels, H, W]``; style: ``[N, style_dim]``
        - output: ``[N, out_channels, H, W]``; twice or half of ``H`` and ``W`` by ``resample``
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        style_dim: int,
        demodulate: bool = True,
        resample: Literal["up", "down"] | None = None,
        resample_kernel: Taps = BINOMIAL,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        if resample not in ("up", "down", None):
            raise ValueError(f"resample must be 'up', 'down' or None, got {resample!r}")
        shape = (1, out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.randn(shape))
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)
        self.modulation = EqualLinear(style_dim, in_channels, bias_init=1.0)
        self.demodulate, self.resample = demodulate, resample
        self.padding = kernel_size // 2 if padding is None else padding
        if resample == "up":
            self.blur = UpFirDnSmooth(resample_kernel, upsample_factor=2, kernel_size=kernel_size)
        elif resample == "down":
            self.blur = UpFirDnSmooth(resample_kernel, downsample_factor=2, kernel_size=kernel_size)

    def forward(
        self,
        input: Tensor,  # [N, in_channels, H, W]
        style: Tensor,  # [N, style_dim]
    ) -> Tensor:
        out = demodulate(*self.convolve(input, style))
        return self.blur(out) if self.resample == "up" else out

    def convolve(
        self,
        input: Tensor,  # [N, in_channels, H, W]
        style: Tensor,  # [N, style_dim]
        gain: Tensor | None = None,  # []
    ) -> tuple[Tensor, Tensor | None]:
        """Modulate and convolve; demodulation, and smoothing after upsampling, are yet to come.

        ``gain`` multiplies the input. Demodulation does not undo it.

        Returns:
            What the convolution gives, and the factors [N, out_channels] by which
            :func:`demodulate` multiplies it, or None where there is nothing to multiply.
        """
        dtype = input.dtype
        weight, factors = self.weight.squeeze(0), self.modulation(style)  # [O, I, k, k], [N, I]
        if self.demodulate and dtype == torch.float16:
            # Demodulation undoes both; without them 65,504 would be exceeded on the way
            largest = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-8)
            weight = weight * (self.scale / largest)
            factors = factors / factors.abs().amax(1, keepdim=True).clamp_min(1e-8)
        else:
            factors = factors * self.scale  # [N, I], which is less work than the weights
        scale = None
        if self.demodulate:
            energy = F.linear(factors.square(), weight.square().sum((2, 3)))  # [N, O]
            scale = torch.rsqrt(energy + 1e-8)
            scale = scale if gain is None else scale * gain
        elif gain is not None:
            factors = factors * gain
        if weight.shape[-1] == 1 and self.resample is None and self.padding == 0:
            own = (weight.flatten(1) * factors[:, None]).to(dtype)  # [N, O, I]
            return (own @ input.flatten(2)).unflatten(2, input.shape[2:]), scale
        input, weight = input * factors[:, :, None, None].to(dtype), weight.to(dtype)
        if self.resample == "up":
            return F.conv_transpose2d(input, weight.transpose(0, 1), stride=2), scale
        if self.resample == "down":
            return F.conv2d(self.blur(input), weight, stride=2), scale
        return F.conv2d(input, weight, padding=self.padding), scale

    def extra_repr(self) -> str:
        _, out_channels, in_channels, size, _ = self.weight.shape
        return (
            f"{in_channels}, {out_channels}, {size}, "
            f"demodulate={self.demodulate}, resample={self.resample!r}"
        )


def demodulate(
    input: Tensor,  # [N, C, ...]
    scale: Tensor | None,  # [N, C], None for no demodulation
) -> Tensor:
    """Multiply each channel of each sample by its factor: one pass over memory.

    Smoothing is linear in each channel, so it may come before this or after.
    """
    if scale is None:
        return input
    return input * scale.reshape(*scale.shape, *(1,) * (input.dim() - 2)).to(input.dtype)


class NoiseInjection(nn.Module):
    """The learned strength, zero at first, of the noise that :class:`StyledConv` adds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias and leaky ReLU: one layer of the generator.

    One image of noise is added to all channels. Demodulation, noise, bias and leaky ReLU are one
    pass over memory, which also smooths where the layer upsamples. ``clamp`` limits what comes out
    to ``[-clamp, clamp]``.

    Shape:
        - input: ``[N, in_channels, H, W]``; style: ``[N, style_dim]``; noise: as the output's
          ``[N or 1, 1, H, W]``, None for fresh noise
        - output: ``[N, out_channels, H, W]``, or twice ``H`` and ``W`` where ``upsample``
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style_dim: int,
        upsample: bool = False,
        resample_kernel: Taps = BINOMIAL,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.conv = ModulatedConv2d(
            in_channels,
            out_channels,
            kernel_size=3,
            style_dim=style_dim,
            resample="up" if upsample else None,
            resample_kernel=resample_kernel,
        )
        self.noise = NoiseInjection()
        self.activate = FusedLeakyReLU(out_channels)

    def forward(self, input: Tensor, style: Tensor, noise: Tensor | None = None) -> Tensor:
        out, scale = self.conv.convolve(input, style)
        upsample, activate = self.conv.resample == "up", self.activate
        if noise is None:
            n, _, h, w = input.shape
            size = (2 * h, 2 * w) if upsample else (h, w)
            noise = torch.randn(n, 1, *size, dtype=torch.float32, device=out.device)
        operands = (activate.bias, noise, self.noise.weight, activate.negative_slope)
        finish = self.conv.blur.bias_act if upsample else bias_act
        return finish(out, *operands, gain=activate.scale, clamp=self.clamp, scale=scale)


class ToRGB(nn.Module):
    """Add this resolution's share to the image: ``upsample(skip) + conv1x1(input) + bias``.

    ``clamp`` limits the share, not the image, to ``[-clamp, clamp]``.

    Shape:
        - input: ``[N, in_channels, H, W]``; style: ``[N, style_dim]``; skip: the image so far
          ``[N, image_channels, H / 2, W / 2]``, or None at the first resolution
        - output: ``[N, image_channels, H, W]``
    """

    def __init__(
        self,
        in_channels: int,
        image_channels: int,
        style_dim: int,
        upsample: bool = True,
        resample_kernel: Taps = BINOMIAL,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.clamp = clamp
        if upsample:
            self.upsample = UpFirDnUpsample(resample_kernel, factor=2)
        self.conv = ModulatedConv2d(in_channels, image_channels, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, image_channels, 1, 1))

    def forward(self, input: Tensor, style: Tensor, skip: Tensor | None = None) -> Tensor:
        out = self.conv(input, style).to(self.bias.dtype) + self.bias
        if self.clamp is not None:
            out = out.clamp(-self.clamp, self.clamp)
        return out if skip is None else out + self.upsample(skip)


# Discriminator


class BiasActivation(FusedLeakyReLU):
    """Bias, leaky ReLU, its gain, the limits ``[-clamp, clamp]`` if any, and ``gain``, in one pass.

    Shape:
        - input, output: ``[N, channel, H, W]``
    """

    def __init__(self, channel: int, clamp: float | None = None, gain: float = 1.0) -> None:
        super().__init__(channel, scale=math.sqrt(2) * gain)
        self.clamp = None if clamp is None else clamp * gain

    def forward(self, input: Tensor) -> Tensor:
        slope, gain = self.negative_slope, self.scale
        return bias_act(input, self.bias, negative_slope=slope, gain=gain, clamp=self.clamp)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, clamp={self.clamp}"


class ConvLayer(nn.Sequential):
    """Smoothing where the resolution is halved, an equalised convolution, bias and leaky ReLU.

    A 1x1 convolution needs no more than the samples that stay, so there the smoothing is the
    decimation too. ``clamp`` limits what an activated layer gives to ``[-clamp, clamp]``. What
    comes out is multiplied by ``gain``, which costs no pass of its own.

    Shape:
        - input: ``[N, in_channels, H, W]``
        - output: ``[N, out_channels, H, W]``, or half of ``H`` and ``W`` where ``downsample``
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        downsample: bool = False,
        activate: bool = True,
        resample_kernel: Taps = BINOMIAL,
        clamp: float | None = None,
        gain: float = 1.0,
    ) -> None:
        layers: list[nn.Module] = []
        stride, padding = 1, kernel_size // 2
        if downsample and kernel_size == 1:
            layers.append(UpFirDnDownsample(resample_kernel, factor=2))
        elif downsample:
            stride, padding = 2, 0
            smooth = UpFirDnSmooth(resample_kernel, downsample_factor=2, kernel_size=kernel_size)
            layers.append(smooth)
        own = 1.0 if activate else gain
        layers.append(EqualConv2d(in_channels, out_channels, kernel_size, stride, padding, own))
        if activate:
            layers.append(BiasActivation(out_channels, clamp, gain))
        super().__init__(*layers)


class ResBlock(nn.Module):
    """Halve the resolution: ``conv2(conv1(x)) + skip(x)``, both of which are divided by sqrt(2).

    ``clamp`` limits what ``conv1`` and, before the division, ``conv2`` give, not ``skip``.

    Shape:
        - input: ``[N, in_channels, H, W]``
        - output: ``[N, out_channels, H / 2, W / 2]``
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        resample_kernel: Taps = BINOMIAL,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        down: dict[str, Any] = {"downsample": True, "resample_kernel": resample_kernel}
        down["gain"] = 1 / math.sqrt(2)  # keeps the variance of the sum
        self.conv1 = ConvLayer(in_channels, in_channels, 3, clamp=clamp)
        self.conv2 = ConvLayer(in_channels, out_channels, 3, clamp=clamp, **down)
        self.skip = ConvLayer(in_channels, out_channels, 1, activate=False, **down)

    def forward(self, input: Tensor) -> Tensor:
        return self.conv2(self.conv1(input)) + self.skip(input)


class MinibatchStdDev(nn.Module):
    """Append, as ``num_channels`` more channels, how much the samples of a group differ.

    1. Sample ``i`` of a batch of ``N`` belongs to group ``i % (N // size)``, where ``size`` is the
       largest divisor of ``N`` up to ``group_size``, :meth:`size_of`. In groups of one sample, of
       five for example, the channels are constant.
    2. Take the standard deviation over the group at each channel and pixel, and its mean over
       all pixels of ``C // num_channels`` channels: ``num_channels`` numbers per group.

    Shape:
        - input: ``[N, C, H, W]``, ``C`` a multiple of ``num_channels``
        - output: ``[N, C + num_channels, H, W]``
    """

    def __init__(self, group_size: int = 4, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size, self.num_channels = group_size, num_channels

    def forward(self, input: Tensor) -> Tensor:
        n, c, h, w = input.shape
        size = self.size_of(n)
        groups = input.reshape(size, n // size, self.num_channels, c // self.num_channels, h, w)
        deviation = (groups.var(0, correction=0) + 1e-8).sqrt().mean((2, 3, 4))  # [N / size, F]
        channels = deviation.repeat(size, 1)[:, :, None, None].expand(-1, -1, h, w)
        return torch.cat((input, channels), 1)

    def size_of(self, n: int) -> int:
        """How many samples a group of a batch of ``n`` has."""
        return next(size for size in range(min(self.group_size, n), 0, -1) if n % size == 0)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, num_channels={self.num_channels}"
