# SPDX-License-Identifier: BSD-3-Clause
"""The layers in a model: half the size twice, double it twice; one forward, one backward."""

import torch
from torch import nn

from resample_layers import UpFirDnDownsample, UpFirDnSmooth, UpFirDnUpsample
from resample_layers.filters import NAMED_TAPS

model = nn.Sequential(
    UpFirDnDownsample((1, 3, 3, 1)),  # [H, W] -> [H // 2, W // 2]
    UpFirDnSmooth((1, 3, 3, 1), downsample_factor=2, kernel_size=3),  # the filter of ...
    nn.Conv2d(3, 16, kernel_size=3, stride=2),  # ... a strided convolution; halves as well
    nn.LeakyReLU(0.2),
    UpFirDnUpsample((1, 3, 3, 1)),  # [H, W] -> [H * 2, W * 2]
    UpFirDnUpsample(NAMED_TAPS["lanczos3"], padding_mode="reflect"),  # no dark borders
)
images = torch.randn(4, 3, 64, 48, requires_grad=True)

x = images
for layer in model:
    x = layer(x)
    print(f"{type(layer).__name__:18} {list(x.shape)}")
x.square().mean().backward()
print(f"{'gradient':18} {list(images.grad.shape)}")
