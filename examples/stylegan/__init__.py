# SPDX-License-Identifier: BSD-3-Clause
"""StyleGAN2 and StyleGAN3, whose every change of resolution is a layer of ``resample_layers``.

``blocks``         equalised and modulated convolutions, noise, to-RGB, residual block, statistics
``styles``         what all generators share: the mapping network, and styles
``inputs``         a learned image or Fourier features, where a generator starts
``generator``      StyleGAN2's skip generator
``alias_free``     StyleGAN3's generator, and the plan of its layers
``transforms``     moving and turning what a Fourier input makes a generator draw
``discriminator``  residual discriminator
``losses``         logistic loss, R1, path length
``settings``       what decides the result of a training; ``configs/`` has files of them
``data``           handwritten digits, photographs, or any folder of images
``augment``        adaptive discriminator augmentation
``processes``      several processes, a batch dealt among them
``training``       what one step does
``graphs``         calls that CUDA graphs repeat
``run``            the files of a run: checkpoints, metrics, samples
``files``          files that are written whole or not at all
``evaluate``       how good the samples are: Fréchet distances, a classifier's verdict, neighbours
``train``          ``python -m examples.stylegan.train --out runs/demo``
``generate``       ``python -m examples.stylegan.generate --checkpoint FILE --out pictures``
``describe``       ``python -m examples.stylegan.describe --config stylegan3-t-1024``
``equivariance``   ``python -m examples.stylegan.equivariance --checkpoint FILE``
``sticking``       ``python -m examples.stylegan.sticking --out runs/sticking``
``checkpoints``    files of this training and of three other codes, in; of two of them, out

Attributes carry the names of rosinality's checkpoints (``convs.0.conv.modulation.weight``), so
that its state dicts fit the modules key by key.

Sources: Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2020; Karras et al.,
Alias-Free Generative Adversarial Networks, 2021.
"""
