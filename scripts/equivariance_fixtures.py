# SPDX-License-Identifier: BSD-3-Clause
"""Run NVIDIA's equivariance metrics, and record their numbers.

    python scripts/equivariance_fixtures.py STYLEGAN3

``STYLEGAN3`` is a checkout of NVlabs/stylegan3, whose ``metrics/equivariance.py`` runs on the CPU
where the packages that it imports are installed (requests). Writes
``tests/fixtures/equivariance.npz``: moved images and masks of the cases in
``tests/test_equivariance.py``, and the decibels of its generator.
"""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path

import numpy as np
import torch
from packaging.version import Version
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import test_equivariance as cases  # noqa: E402


class Original(nn.Module):
    """The generator of the tests, with the names by which the original calls one."""

    c_dim = 0

    def __init__(self, generator: cases.Waves) -> None:
        super().__init__()
        self.z_dim, self.img_resolution = generator.style_dim, generator.resolution
        self.mapping = Mapping(generator)
        self.synthesis = Synthesis(generator)


class Mapping(nn.Module):
    def __init__(self, generator: cases.Waves) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.generator.repeat(self.generator.mapping(z))


class Synthesis(nn.Module):
    def __init__(self, generator: cases.Waves) -> None:
        super().__init__()
        self.generator, self.input = generator, generator.input
        self.layer = nn.Module()
        self.layer.register_buffer("noise_const", generator.fixed_noise()[0][0, 0])

    def forward(self, ws: torch.Tensor, noise_mode: str) -> torch.Tensor:
        assert noise_mode == "const"
        return self.generator.synthesis(ws, [self.layer.noise_const[None, None]])


def load(checkout: str) -> types.ModuleType:
    """The original's module, from its checkout."""
    # It compares versions of torch by what setuptools no longer has
    versions = types.ModuleType("pkg_resources")
    versions.parse_version = Version
    sys.modules["pkg_resources"] = versions
    sys.path.insert(0, checkout)
    from metrics import equivariance

    return equivariance


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore")  # of torch.meshgrid's default
    original = load(sys.argv[1])
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, (x, y) in cases.SHIFTS.items():
        # The original rounds tensors
        shift = torch.tensor(x), torch.tensor(y)
        image = cases.example()
        found[f"integer {name}"] = original.apply_integer_translation(image, *shift)
        found[f"fractional {name}"] = original.apply_fractional_translation(image, *shift)
    for name, angle in cases.ANGLES.items():
        image = cases.example()
        found[f"rotation {name}"] = original.apply_fractional_rotation(image, angle)
        found[f"pseudo {name}"] = original.apply_fractional_pseudo_rotation(image, angle)
    arrays = {}
    for name, (images, mask) in found.items():
        arrays[f"{name} images"] = images.numpy()
        arrays[f"{name} mask"] = mask.numpy().astype(np.uint8)

    options = sys.modules["metrics.metric_utils"].MetricOptions(
        G=Original(cases.Waves()), device=torch.device("cpu")
    )
    torch.manual_seed(cases.SEED)
    arrays["decibels"] = np.array(
        original.compute_equivariance_metrics(
            options,
            cases.IMAGES,
            cases.BATCH,
            compute_eqt_int=True,
            compute_eqt_frac=True,
            compute_eqr=True,
        )
    )
    np.savez_compressed(cases.FILE, **arrays)
    print(f"{len(arrays)} arrays; decibels {arrays['decibels']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
