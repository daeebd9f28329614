# SPDX-License-Identifier: BSD-3-Clause
"""BigVGAN's ``alias_free_activation`` and ``activations``, and the package ``alias_free_torch``.

Parameters, buffers and their names are the original's, so checkpoints load strictly both ways. Some
copies, such as Qwen's, keep no filters in their checkpoints. These load strictly here too, and the
filters stay what they were; such a copy loads a checkpoint of ours with ``strict=False``.

A ``filter`` stays in float32 in a half model, where the original rounds it. The filter of a
checkpoint replaces the designed one, as in the original, and a half type becomes float32. Where it
is the designed filter, rounded to a half type, the designed one stands in for it.

:class:`Activation1d` computes Snake and SnakeBeta and both filters as one operator, with gradients.
Compiled kernels need one pass. Those of CUDA have run in the emulation of the tests, and not yet on
a GPU. Without compiled kernels the signal is computed piece by piece in plain torch. The numbers
are those of the original's torch path. The original's fused CUDA kernel has no gradient, takes 12
taps and ratio 2 for granted, and does not continue the activated signal, so that its first three
and last three samples are others.

What the original gets wrong, most of it without a word, and what happens here instead:

- ``UpSample1d`` with a kernel that is shorter than twice the ratio returns an empty signal, or does
  not continue the signal at its ends. Here it is an error.
- ``kaiser_sinc_filter1d`` with a cutoff of 0 ends in an UnboundLocalError. Here it is a ValueError.
- ``Snake`` and ``SnakeBeta`` with ``alpha_logscale`` start at 1, whatever ``alpha`` is. Here they
  start at ``alpha``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from .. import filters, geometry, ops
from ..alias_free import exponential
from ..buffers import keep_learned
from ..ops.arguments import as_factors
from ..ops.border import MODES, extend
from ..values import shown
from .arguments import as_count, as_flag, as_number

__all__ = [
    "Activation1d",
    "DownSample1d",
    "LowPassFilter1d",
    "Snake",
    "SnakeBeta",
    "UpSample1d",
    "kaiser_sinc_filter1d",
]

HALF = (torch.float16, torch.bfloat16)
Self = TypeVar("Self", bound="_Filtering")


def kaiser_sinc_filter1d(cutoff: float, half_width: float, kernel_size: int) -> Tensor:
    """The float32 taps ``[1, 1, kernel_size]`` of :func:`resample_layers.filters.kaiser_sinc`.

    Raises:
        TypeError, ValueError: if an argument is at fault.

    Example:
        >>> kaiser_sinc_filter1d(0.25, 0.3, 12)[0, 0, :3]
        tensor([ 0.0020,  0.0094, -0.0255])
    """
    return _filter(_designed(cutoff, half_width, kernel_size))


def _designed(cutoff: float, half_width: float, kernel_size: int) -> tuple[float, ...]:
    if (size := as_count("kernel_size", kernel_size)) < 1:
        raise ValueError(f"kernel_size must be >= 1, got kernel_size={shown(kernel_size)}")
    return filters.kaiser_sinc(cutoff, half_width, size)


def _filter(taps: Sequence[float], device: torch.device | None = None) -> Tensor:
    return torch.tensor(taps, dtype=torch.float32, device=device).reshape(1, 1, -1)


class _Filtering(nn.Module):
    """A module with the buffer ``filter``, which no half type rounds and no move loses.

    A filter that the user trains is moved as a parameter is: one that has been made a parameter,
    or that requires a gradient.
    """

    filter: Tensor  # [1, 1, taps]

    def __init__(self, cutoff: float, half_width: float, kernel_size: int) -> None:
        super().__init__()
        self._taps = _designed(cutoff, half_width, kernel_size)
        self.register_buffer("filter", _filter(self._taps))

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the module, then take the values anew, so that none is rounded or unset."""
        buffers = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        before, after = buffers.get("filter"), keep_learned(self, ["filter"], buffers).get("filter")
        if before is None or after is None:
            return self
        dtype = torch.promote_types(after.dtype, torch.float32)
        if before is after and after.dtype == dtype:
            return self
        if before.is_meta and not after.is_meta:
            before = _filter(self._taps, after.device)
        if after.dtype == dtype and not after.is_inference():
            with torch.no_grad():
                after.copy_(before)  # in place: shared memory stays shared
        else:
            self.filter = before.to(after.device, dtype)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """A filter that is not in the state stays what it is; one of a half type becomes float32.

        A filter on the meta device has no values that could stay: it is reported as missing.
        """
        key = prefix + "filter"
        stored, own = state_dict.get(key), self._buffers.get("filter")
        if own is not None and isinstance(stored, Tensor) and stored.dtype in HALF:
            # Torch refuses real tensors beside fake ones, and says so once more below
            with suppress(AssertionError):
                state_dict[key] = self._widened(stored)  # the dict is a copy of the user's
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        missing: list[str] = args[2] if len(args) > 2 else kwargs["missing_keys"]
        if own is not None and not own.is_meta and key in missing:
            missing.remove(key)

    def _widened(self, stored: Tensor) -> Tensor:
        """A filter of a half type in float32: the designed one, if it is that one rounded."""
        wide = stored.float()
        designed = _filter(self._taps, stored.device)
        if stored.is_meta or FakeTensor in (type(wide), type(designed)):  # they have no values
            return wide
        if wide.shape != designed.shape:
            return wide
        # The original designs in float32: its taps are others by some 1e-7 before they are rounded
        rounding = torch.finfo(stored.dtype).eps * designed.abs() + 1e-6 * designed.abs().max()
        return designed if bool(((wide - designed).abs() <= rounding).all()) else wide


class LowPassFilter1d(_Filtering):
    """A low-pass filter of signals, and every ``stride``-th of the samples.

    Args:
        cutoff: frequency where the response is one half, in cycles per sample, in (0, 0.5].
        half_width: half of the transition from pass band to stop band, in cycles per sample.
        stride: the decimation factor.
        padding: whether the signal is continued at its ends, which makes the output
            ``ceil(T / stride)`` long.
        padding_mode: how: 'replicate', 'reflect', 'circular' or 'constant', which is with zeros.
        kernel_size: number of taps.

    Shape:
        - input: ``[B, C, T]``; output: ``[B, C, ceil(T / stride)]``

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """

    def __init__(
        self,
        cutoff: float = 0.5,
        half_width: float = 0.6,
        stride: int = 1,
        padding: bool = True,
        padding_mode: str = "replicate",
        kernel_size: int = 12,
    ) -> None:
        if not isinstance(padding_mode, str) or padding_mode not in (*MODES, "constant"):
            raise ValueError(
                f"padding_mode must be one of {', '.join(MODES)}, constant, got "
                f"{shown(padding_mode)}"
            )
        super().__init__(cutoff, half_width, kernel_size)
        self.kernel_size = kernel_size = as_count("kernel_size", kernel_size)
        self.even = kernel_size % 2 == 0
        self.pad_left, self.pad_right = (kernel_size - 1) // 2, kernel_size // 2
        self.stride = _rate("stride", stride)
        self.padding, self.padding_mode = as_flag("padding", padding), padding_mode

    def forward(self, x: Tensor) -> Tensor:
        pad = (self.pad_left, self.pad_right) if self.padding else (0, 0)
        if self.padding and self.padding_mode != "constant":
            x, pad = extend(x, pad, self.padding_mode), (0, 0)
        return ops.upfirdn1d(x, _correlated(self.filter), down=self.stride, pad=pad)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, x: Tensor) -> Tensor: ...


class UpSample1d(_Filtering):
    """Upsample signals by ``ratio``; they are continued by their end samples.

    Args:
        ratio: the factor.
        kernel_size: number of taps, at least twice the ratio; None: 6 times the ratio.

    Shape:
        - input: ``[B, C, T]``; output: ``[B, C, T * ratio]``

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """

    def __init__(self, ratio: int = 2, kernel_size: int | None = None) -> None:
        ratio = _rate("ratio", ratio)
        size = 6 * ratio if kernel_size is None else as_count("kernel_size", kernel_size)
        if size < 2 * ratio:
            raise ValueError(
                f"kernel_size must be at least twice the ratio, here {2 * ratio}, got "
                f"kernel_size={size}: the original loses the ends of the signal"
            )
        super().__init__(0.5 / ratio, 0.6 / ratio, size)
        self.ratio = self.stride = ratio
        self.kernel_size = size
        self.pad = size // ratio - 1
        self.pad_left = self.pad * ratio + (size - ratio) // 2
        self.pad_right = self.pad * ratio + (size - ratio + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        pads = geometry.upsample_pad(self.kernel_size, self.ratio)
        border = geometry.border(*pads, self.ratio)
        pad = [p - b * self.ratio for p, b in zip(pads, border, strict=True)]
        x = extend(x, border, "replicate")
        return ops.upfirdn1d(x, _scaled(self.filter, self.ratio), up=self.ratio, pad=pad)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, x: Tensor) -> Tensor: ...


class DownSample1d(nn.Module):
    """Downsample signals by ``ratio`` with a :class:`LowPassFilter1d`.

    Args:
        ratio: the factor.
        kernel_size: number of taps; None: 6 times the ratio.

    Shape:
        - input: ``[B, C, T]``; output: ``[B, C, ceil(T / ratio)]``

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """

    def __init__(self, ratio: int = 2, kernel_size: int | None = None) -> None:
        super().__init__()
        self.ratio = ratio = _rate("ratio", ratio)
        self.kernel_size = (
            6 * ratio if kernel_size is None else as_count("kernel_size", kernel_size)
        )
        self.lowpass = LowPassFilter1d(
            0.5 / ratio, 0.6 / ratio, stride=ratio, kernel_size=self.kernel_size
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.lowpass(x)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, x: Tensor) -> Tensor: ...


class Snake(nn.Module):
    """``x + sin(alpha x) ** 2 / (alpha + 1e-9)`` with an alpha for each channel.

    Args:
        in_features: number of channels.
        alpha: the value that alpha starts at.
        alpha_trainable: whether the parameter wants a gradient.
        alpha_logscale: whether the parameter holds the logarithm of alpha.

    Shape:
        - input, output: ``[B, in_features, T]``

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """

    _names: tuple[str, ...] = ("alpha",)  # of the parameters
    alpha: Tensor

    def __init__(
        self,
        in_features: int,
        alpha: float = 1.0,
        alpha_trainable: bool = True,
        alpha_logscale: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = as_count("in_features", in_features)
        self.alpha_logscale = as_flag("alpha_logscale", alpha_logscale)
        trainable = as_flag("alpha_trainable", alpha_trainable)
        start = as_number("alpha", alpha)
        if self.alpha_logscale and start <= 0:
            raise ValueError(f"alpha must be > 0 for alpha_logscale=True, got alpha={shown(alpha)}")
        value = torch.full((self.in_features,), math.log(start) if self.alpha_logscale else start)
        for name in self._names:
            setattr(self, name, nn.Parameter(value.clone(), requires_grad=trainable))

    def alpha_and_beta(self) -> tuple[Tensor, Tensor | None]:
        """The two numbers of each channel as they stand in the formula; no beta: it is alpha."""
        values = [getattr(self, name) for name in self._names]
        values = [exponential(v) if self.alpha_logscale else v for v in values]
        return values[0], values[1] if len(values) > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha_and_beta()
        return ops.filtered_snake(x, alpha, beta)

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, x: Tensor) -> Tensor: ...


class SnakeBeta(Snake):
    """``x + sin(alpha x) ** 2 / (beta + 1e-9)``: :class:`Snake` with a parameter ``beta`` too.

    Shape:
        - input, output: ``[B, in_features, T]``

    Raises:
        TypeError, ValueError: if an argument is at fault.
    """

    _names = ("alpha", "beta")
    beta: Tensor


class Activation1d(nn.Module):
    """An activation of signals at ``up_ratio`` times their sampling rate, without aliasing.

    Args:
        activation: a module or a function, which is called between the filters. :class:`Snake` and
            :class:`SnakeBeta` of this module are computed with them, as one operator, so hooks on
            them do not run.
        up_ratio: factor of the upsampling before the activation.
        down_ratio: factor of the downsampling after it.
        up_kernel_size: number of taps of the first filter, at least twice ``up_ratio``.
        down_kernel_size: number of taps of the second filter.
        fused: whether the two activations of this module are computed with the filters as one
            operator. False: every activation is called.

    Shape:
        - input: ``[B, C, T]``; output: ``[B, C, ceil(T * up_ratio / down_ratio)]``

    Raises:
        TypeError, ValueError: if an argument is at fault.

    Example:
        >>> layer = Activation1d(SnakeBeta(8, alpha_logscale=True))
        >>> layer(torch.ones(1, 8, 100)).shape
        torch.Size([1, 8, 100])
        >>> list(layer.state_dict())
        ['act.alpha', 'act.beta', 'upsample.filter', 'downsample.lowpass.filter']
    """

    def __init__(
        self,
        activation: Callable[[Tensor], Tensor],
        up_ratio: int = 2,
        down_ratio: int = 2,
        up_kernel_size: int = 12,
        down_kernel_size: int = 12,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if not callable(activation):
            raise TypeError(f"activation must be a module or a function, got {shown(activation)}")
        self.up_ratio, self.down_ratio = up_ratio, down_ratio
        self.act = activation
        self.upsample = UpSample1d(up_ratio, up_kernel_size)
        self.downsample = DownSample1d(down_ratio, down_kernel_size)
        self.fused = as_flag("fused", fused)

    def forward(self, x: Tensor) -> Tensor:
        act: Any = self.act
        if not self.fused or type(act) not in (Snake, SnakeBeta):
            return self.downsample(act(self.upsample(x)))
        up, down = self.upsample, self.downsample.lowpass
        alpha, beta = act.alpha_and_beta()
        return ops.filtered_snake(
            x, alpha, beta, _scaled(up.filter, up.ratio), _correlated(down.filter),
            up=up.ratio, down=down.stride, pad=geometry.upsample_pad(up.kernel_size, up.ratio),
            down_pad=(down.pad_left, down.pad_right), padding_mode="replicate",
        )  # fmt: skip

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, x: Tensor) -> Tensor: ...


def _rate(name: str, value: Any) -> int:
    return as_factors(name, value, 1)[0]


def _scaled(filter: Tensor, ratio: int) -> Tensor:
    """The taps ``[taps]`` of a transposed convolution, which is a true one, with their gain."""
    return filter.reshape(-1) * ratio


def _correlated(filter: Tensor) -> Tensor:
    """The taps ``[taps]`` of a correlation, as a true convolution has them."""
    return filter.reshape(-1).flip(0)
