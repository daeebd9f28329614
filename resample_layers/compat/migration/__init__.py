# SPDX-License-Identifier: BSD-3-Clause
"""The parts of the command :mod:`resample_layers.compat.migrate`.

``copies`` is the table of the codes, ``syntax`` reads Python, ``search`` finds what is to be
changed, and ``changes`` changes it.
"""
