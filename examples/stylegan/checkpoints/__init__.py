# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints of other StyleGAN codes: :func:`load` them, save as two of them.

:func:`read_values` reads all of a checkpoint of our training, by the same reader.

``rosinality``        stylegan2-pytorch's ``.pt``
``basicsr``           BasicSR's ``.pth``, generator and discriminator in files of their own
``nvidia``            ``.pkl`` of stylegan2-ada-pytorch, and of StyleGAN2 and StyleGAN3 in stylegan3
``resample_layers``   ``checkpoint.pt`` of :mod:`examples.stylegan.train`

Nothing in a file is executed. A file goes through these modules in turn:

``pickles``   a machine that builds data of a pickle's opcodes, and inert records of all else
``archives``  the files around a pickle, and the bytes that its tensors look at
``records``   tensors and numbers, of those records
``nvidia``    NVIDIA's objects to a state dict, and their attributes to options, each checked
``contents``  which dialect it is, and its state dicts of tensors, of the file's own keys
``loading``   our networks, with these weights
``saving``    and back

Both ways use ``keys``, the table of what each code calls a layer, and ``checks``, the errors.
docs/checkpoints.md says what differs otherwise.
"""

from .checks import CheckpointError
from .contents import read_values
from .loading import Checkpoint, load
from .saving import save_basicsr, save_rosinality

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "load",
    "read_values",
    "save_basicsr",
    "save_rosinality",
]
