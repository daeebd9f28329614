# SPDX-License-Identifier: BSD-3-Clause
"""The ops: functions that layers are made of.

- ``upfirdn2d``: the op; start here
- ``upfirdn2d_bias_act``: the op, then scale, noise, bias, leaky ReLU and gain in the same pass
- ``upfirdn1d``: the op on signals [N, C, L]
- ``upfirdn3d``: the op on volumes [N, C, D, H, W], for separable kernels
- ``upfirdn2d_native``: the op in plain torch
- ``UpFirDn2d``: the op as an autograd Function
- ``UpFirDn2dBackward``: its gradient in the input, as an autograd Function
- ``filtered_lrelu``: upsample, leaky ReLU, downsample: StyleGAN3's activation
- ``filtered_snake``: upsample, Snake, downsample: BigVGAN's activation of signals
- ``bias_act``: what follows in ``upfirdn2d_bias_act``, alone
- ``fused_leaky_relu``: bias, leaky ReLU and gain; ``FusedLeakyReLU`` is its module
"""

from . import owner
from .activation import bias_act, upfirdn2d_bias_act
from .autograd import UpFirDn2d, UpFirDn2dBackward
from .dimensions import upfirdn1d, upfirdn3d
from .filtered_act import filtered_lrelu, filtered_snake
from .leaky_relu import FusedLeakyReLU, fused_leaky_relu
from .native import upfirdn2d_native
from .upfirdn2d import upfirdn2d

owner.publish()  # every op is registered
from . import extension as extension  # noqa: E402  # it loads the compiled kernels of these ops

__all__ = [
    "FusedLeakyReLU",
    "UpFirDn2d",
    "UpFirDn2dBackward",
    "bias_act",
    "filtered_lrelu",
    "filtered_snake",
    "fused_leaky_relu",
    "upfirdn1d",
    "upfirdn2d",
    "upfirdn2d_bias_act",
    "upfirdn2d_native",
    "upfirdn3d",
]
