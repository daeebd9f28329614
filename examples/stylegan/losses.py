# SPDX-License-Identifier: BSD-3-Clause
"""What is minimised: logistic losses, and the two penalties that need second derivatives.

Source of the formulas: non-saturating loss: Goodfellow et al., 2014; R1: Mescheder et al., 2018;
path length: Karras et al., StyleGAN2, 2020.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Logistic loss of scores [N, 1]: ``mean(-log s(real)) + mean(-log(1 - s(fake)))``."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating loss of the scores [N, 1] of generated images: ``mean(-log s(fake))``."""
    return F.softplus(-fake).mean()


def r1_penalty(
    scores: Tensor,  # [N, 1]
    images: Tensor,  # [N, C, H, W], real, requiring grad, that the scores were computed from
) -> Tensor:
    """The squared norm of the scores' gradient in the images, averaged over the batch.

    The sum over the batch is differentiated, so each image's gradient comes out by itself (but
    for the little that the minibatch standard deviation lets through between images).
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def path_lengths(
    images: Tensor,  # [N, C, H, W]
    styles: Tensor,  # [N, L, style_dim], requiring grad, that the images were computed from
    noise: Tensor | None = None,  # [N, C, H, W], None for fresh noise
) -> Tensor:
    """How far each image moves for a step of its styles, in a random direction of image space.

    ``|J^T y|`` with ``J`` the derivative of the image in the styles and ``y`` normal noise divided
    by the image's side, so that lengths of different resolutions compare. The norm is over the
    style's dimensions; layers are averaged, in squares.

    Shape:
        - output: ``[N]``
    """
    if noise is None:
        noise = torch.randn_like(images)
    noise = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * noise).sum(), styles, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def path_length_mean(
    mean: Tensor,  # [], so far
    batch_mean: Tensor,  # [], of the lengths of a whole batch
    decay: float = 0.01,
) -> Tensor:
    """The running mean of the lengths, moved on by a batch."""
    return mean + decay * (batch_mean - mean)


def path_length_penalty(
    lengths: Tensor,  # [N]
    mean: Tensor,  # [], the running mean, this batch in it
) -> Tensor:
    """How much the lengths differ from their running mean, in squares."""
    return (lengths - mean).square().mean()
