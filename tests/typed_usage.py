# SPDX-License-Identifier: BSD-3-Clause
"""Every public name, used as a typed program uses it.

mypy --strict and pyright find nothing to say about this file (``make lint``), and every result has
the type that stands beside it: none is Any. ``tests/test_types.py`` runs it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import resample_layers
from resample_layers import compat, filters, geometry, ops
from resample_layers.compat import basicsr, bigvgan, mmcv, nvidia, rosinality

Taps = tuple[float, ...]


def use_layers(signals: Tensor, images: Tensor, volumes: Tensor) -> None:
    up = resample_layers.UpFirDnUpsample((1, 3, 3, 1), factor=2)
    assert_type(up(images), Tensor)
    assert_type(up(input=images), Tensor)
    assert_type(up.bias_act(images, torch.zeros(3)), Tensor)
    assert_type(up.kernel, Tensor)
    assert_type(up.shift, Taps)
    down = resample_layers.UpFirDnDownsample(
        filters.NAMED_TAPS["linear"], factor=(2, 1), padding_mode="reflect"
    )
    assert_type(down(images), Tensor)
    assert_type(resample_layers.UpFirDnSmooth(upsample_factor=2, kernel_size=3)(images), Tensor)
    assert_type(resample_layers.UpFirDnResample(3, 2)(images), Tensor)
    assert_type(resample_layers.UpFirDnUpsample1d()(signals), Tensor)
    assert_type(resample_layers.UpFirDnDownsample1d(ceil_mode=True)(signals), Tensor)
    assert_type(resample_layers.UpFirDnSmooth1d()(signals), Tensor)
    assert_type(resample_layers.UpFirDnResample1d(160, 147)(signals), Tensor)
    assert_type(resample_layers.UpFirDnUpsample3d()(volumes), Tensor)
    assert_type(resample_layers.UpFirDnDownsample3d()(volumes), Tensor)
    assert_type(resample_layers.UpFirDnSmooth3d()(volumes), Tensor)
    assert_type(resample_layers.UpFirDnResample3d(3, 2)(volumes), Tensor)
    activation = resample_layers.FilteredLeakyReLU(3, up=4, in_cutoff=0.25, clamp=256.0)
    assert_type(activation(images), Tensor)
    assert_type(activation.bias, Tensor | None)
    assert_type(resample_layers.FilteredSnake(3)(signals), Tensor)
    assert_type(resample_layers.FilteredSnakeBeta(3, log_scale=True)(signals), Tensor)
    assert_type(resample_layers.make_resample_kernel([1, 3, 3, 1]), Tensor)
    assert_type(resample_layers.__version__, str)
    model = nn.Sequential(nn.Conv2d(3, 3, 3), up, activation)
    model.load_state_dict(model.state_dict())


def use_ops(signals: Tensor, images: Tensor, volumes: Tensor, kernel: Tensor, taps: Tensor) -> None:
    bias, noise = torch.zeros(3), torch.zeros(1, 1, 9, 9)
    assert_type(ops.upfirdn2d(images, kernel, up=2, pad=(2, 1)), Tensor)
    assert_type(ops.upfirdn2d(images, (taps, taps), down=(2, 1), pad=(1, 1, 0, 2)), Tensor)
    assert_type(
        ops.upfirdn2d_bias_act(
            images, kernel, bias, noise, torch.ones(1), pad=(2, 2), negative_slope=0.1, clamp=1.0
        ),
        Tensor,
    )
    assert_type(ops.upfirdn1d(signals, taps, up=2, pad=(1, 1)), Tensor)
    assert_type(ops.upfirdn3d(volumes, taps, down=2), Tensor)
    assert_type(ops.upfirdn3d(volumes, (taps, taps, taps)), Tensor)
    assert_type(ops.upfirdn2d_native(images, kernel, 1, 1, 2, 2, 1, 1, 1, 1), Tensor)
    out = ops.UpFirDn2d.apply(images, kernel, (2, 2), (1, 1), (2, 1, 2, 1))
    assert_type(out, Tensor)
    sizes = (out.shape[2], out.shape[3])
    pads = geometry.adjoint_pads((8, 8), sizes, (2, 2), (1, 1), (2, 1, 2, 1), (4, 4))
    assert_type(
        ops.UpFirDn2dBackward.apply(
            out, kernel, None, (2, 2), (1, 1), (2, 1, 2, 1), pads, images.shape, sizes
        ),
        Tensor,
    )
    assert_type(ops.bias_act(images, bias, gain=1.0), Tensor)
    assert_type(ops.filtered_lrelu(images, taps, taps, bias, up=2, down=2, pad=(3, 3)), Tensor)
    assert_type(ops.filtered_snake(signals, torch.ones(3), None, taps, up=2, pad=(2, 1)), Tensor)
    assert_type(ops.fused_leaky_relu(images, bias, negative_slope=0.1), Tensor)
    assert_type(ops.FusedLeakyReLU(3)(images), Tensor)


def use_filters() -> None:
    assert_type(filters.NAMED_TAPS["lanczos3"], Taps)
    assert_type(filters.make_resample_kernel((1.0, 1.0)), Tensor)
    filters.normalise_taps("k", [1, 3, 3, 1])
    rows = ((0.25, 0.25), (0.25, 0.25))
    assert_type(filters.marginals(rows), tuple[Taps, Taps])
    assert_type(filters.deviation_from_rank_one(rows), float)
    assert_type(filters.centroid([0.25, 0.75]), float)
    assert_type(filters.LARGEST_BETA, float)
    assert_type(filters.kaiser_beta(60.0), float)
    assert_type(filters.kaiser_attenuation(12, 0.25), float)
    assert_type(filters.kaiser_window(12, 4.0), Taps)
    assert_type(filters.kaiser_lowpass(12, 0.5, 4.0), Taps)
    assert_type(filters.kaiser_sinc(0.25, 0.3, 12), Taps)
    assert_type(filters.design_lowpass(12, 8.0, 6.0, 32.0), Taps)
    assert_type(filters.design_radial_lowpass(12, 8.0, 6.0, 32.0), tuple[Taps, ...])
    assert_type(filters.design_rational_taps(3, 2), Taps)
    assert_type(filters.design_resample_taps(3, attenuation=60.0), Taps)
    assert_type(filters.phases_sum_alike([1, 3, 3, 1], 2), bool)


def use_geometry() -> None:
    pad = (2, 1, 2, 1)
    assert_type(geometry.output_size(8, 2, 1, 2, 1, 4), int)
    assert_type(geometry.output_sizes((8, 8), (2, 2), (1, 1), pad, (4, 4)), tuple[int, int])
    assert_type(geometry.adjoint_pad(8, 16, 2, 1, 2, 4), tuple[int, int])
    phases = geometry.polyphase(2, 1, 2, 1, 4)
    assert_type(phases, geometry.Polyphase)
    assert_type(phases.taps[0][0], geometry.Tap)
    assert_type(geometry.upsample_pad(4, 2), tuple[int, int])
    assert_type(geometry.downsample_pad(4, 2, ceil_mode=True), tuple[int, int])
    assert_type(geometry.smooth_pad(4, 1, 2, 3, False), tuple[int, int])
    assert_type(geometry.filtered_pad(12, 12, 2, 2), tuple[int, int])
    assert_type(geometry.rational_pad(5), tuple[int, int])
    assert_type(geometry.shift(4, 2, 1, 2), float)
    assert_type(geometry.may_miss(2, 2, 1, 4), bool)
    geometry.row_range(8, 1, 3, 2, 1, 2, 4)
    assert_type(geometry.border(2, 1, 2), tuple[int, int])


def use_compat(signals: Tensor, images: Tensor, kernel: Tensor, taps: Tensor) -> None:
    bias, weight = torch.zeros(3), torch.zeros(3, 3, 3, 3)

    assert_type(compat.rosinality.upfirdn2d(images, kernel, up=2, pad=(2, 1)), Tensor)
    assert_type(rosinality.upfirdn2d_native(images, kernel, 1, 1, 1, 1, 0, 0, 0, 0), Tensor)
    assert_type(rosinality.fused_leaky_relu(images, bias), Tensor)
    assert_type(rosinality.FusedLeakyReLU(3)(images), Tensor)
    assert_type(rosinality.make_kernel([1, 3, 3, 1]), Tensor)
    assert_type(rosinality.Upsample([1, 3, 3, 1])(images), Tensor)
    assert_type(rosinality.Downsample([1, 3, 3, 1])(images), Tensor)
    assert_type(rosinality.Blur([1, 3, 3, 1], pad=(2, 1))(images), Tensor)
    assert_type(rosinality.conv2d_gradfix.conv2d(images, weight), Tensor)

    assert_type(compat.basicsr.upfirdn2d(images, kernel, down=2), Tensor)
    assert_type(basicsr.fused_leaky_relu(images, bias), Tensor)
    assert_type(basicsr.FusedLeakyReLU(3)(images), Tensor)
    assert_type(basicsr.make_resample_kernel([1, 3, 3, 1]), Tensor)
    assert_type(basicsr.UpFirDnUpsample([1, 3, 3, 1])(images), Tensor)
    assert_type(basicsr.UpFirDnDownsample([1, 3, 3, 1])(images), Tensor)
    assert_type(basicsr.UpFirDnSmooth([1, 3, 3, 1], 2, kernel_size=3)(images), Tensor)

    assert_type(compat.nvidia.setup_filter([1, 3, 3, 1]), Tensor)
    assert_type(nvidia.upfirdn2d(images, kernel, up=2, padding=[1, 2]), Tensor)
    assert_type(nvidia.upsample2d(images, kernel), Tensor)
    assert_type(nvidia.downsample2d(images, kernel, down=[2, 1]), Tensor)
    assert_type(nvidia.filter2d(images, kernel), Tensor)
    assert_type(nvidia.bias_act(images, bias, act="lrelu", clamp=1.0), Tensor)
    assert_type(nvidia.activation_funcs["lrelu"].def_gain, float)
    assert_type(nvidia.filtered_lrelu(images, taps, taps, bias, up=2, down=2, padding=3), Tensor)
    assert_type(nvidia.conv2d_resample(images, weight, taps, up=2, padding=1), Tensor)
    assert_type(nvidia.fma(images, images, images), Tensor)
    with nvidia.no_weight_gradients():
        assert_type(nvidia.conv2d(images, weight), Tensor)
        assert_type(nvidia.conv_transpose2d(images, weight), Tensor)

    assert_type(compat.mmcv.upfirdn2d(images, kernel, down=(2, 1)), Tensor)
    assert_type(mmcv.upsample2d(images, kernel), Tensor)
    assert_type(mmcv.downsample2d(images, kernel), Tensor)
    assert_type(mmcv.filter2d(images, kernel), Tensor)
    assert_type(mmcv.bias_act(images, bias, act="relu"), Tensor)
    assert_type(mmcv.filtered_lrelu(images, taps, taps, bias, up=2, down=2, padding=3), Tensor)
    assert_type(mmcv.fused_bias_leakyrelu(images, bias), Tensor)
    assert_type(mmcv.FusedBiasLeakyReLU(3)(images), Tensor)

    assert_type(compat.bigvgan.kaiser_sinc_filter1d(0.25, 0.3, 12), Tensor)
    assert_type(bigvgan.LowPassFilter1d(0.25, 0.3, stride=2)(signals), Tensor)
    assert_type(bigvgan.UpSample1d(2)(signals), Tensor)
    assert_type(bigvgan.DownSample1d(2)(signals), Tensor)
    snake = bigvgan.Snake(3, alpha_logscale=True)
    assert_type(snake(x=signals), Tensor)
    assert_type(bigvgan.SnakeBeta(3)(signals), Tensor)
    assert_type(bigvgan.Activation1d(snake)(signals), Tensor)


def main() -> None:
    signals, images = torch.ones(1, 3, 16), torch.ones(1, 3, 8, 8)
    volumes, kernel, taps = torch.ones(1, 3, 4, 4, 4), torch.ones(4, 4), torch.ones(4)
    use_layers(signals, images, volumes)
    use_ops(signals, images, volumes, kernel, taps)
    use_filters()
    use_geometry()
    use_compat(signals, images, kernel, taps)


if __name__ == "__main__":
    main()
