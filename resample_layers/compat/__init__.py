# SPDX-License-Identifier: BSD-3-Clause
"""The calling conventions of five codes over our ops; nothing else changes in what calls them.

- ``rosinality``: rosinality's ``op`` and the layers of its ``model.py``
- ``basicsr``: BasicSR's ``basicsr.ops`` and the layers of its StyleGAN2
- ``nvidia``: ``torch_utils.ops`` of StyleGAN2-ADA and StyleGAN3
- ``mmcv``: ``mmcv.ops``, version 2
- ``bigvgan``: BigVGAN's ``alias_free_activation`` and ``activations``, and ``alias_free_torch``

Each function has the signature of its original, and the same meaning of pads, flips and gains.
Where the original computes something wrong without a word, these raise or compute what it
promised; each module says where. ``docs/migrating.md`` says which lines to change.
"""

from . import basicsr, bigvgan, mmcv, nvidia, rosinality

__all__ = ["basicsr", "bigvgan", "mmcv", "nvidia", "rosinality"]
