# SPDX-License-Identifier: BSD-3-Clause
"""Count the original networks' parameters: ``python scripts/parameter_counts.py PEERS``.

``PEERS`` holds checkouts of the originals, as for checkpoint_fixtures.py. Writes
``tests/fixtures/parameter_counts.json``: for each code and resolution, with the channels of
StyleGAN2's configuration f, what is trained in the generator and in the discriminator; and of
StyleGAN3's configurations T and R, with the options of its ``train.py``, the same.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.checkpoint_fixtures import original

ALIAS_FREE = {  # options of the generator
    "stylegan3-t": {},
    "stylegan3-r": {
        **{"conv_kernel": 1, "use_radial_filters": True},
        **{"channel_base": 65536, "channel_max": 1024},
    },
}
CODES = ("rosinality", "ada", "stylegan3-stylegan2")
RESOLUTIONS = (64, 256, 1024)
RESOLUTIONS_OF_3 = (256, 512, 1024)
FILE = Path(__file__).parent.parent / "tests" / "fixtures" / "parameter_counts.json"


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    counts: dict[str, dict[str, list[int]]] = {}
    for name in CODES:
        with original(name, Path(sys.argv[1])) as peer:
            for resolution in RESOLUTIONS:
                networks = peer.networks(resolution)
                counts.setdefault(name, {})[str(resolution)] = [
                    sum(parameter.numel() for parameter in network.parameters())
                    for network in (networks.generator, networks.discriminator)
                ]
    with original("stylegan3-stylegan2", Path(sys.argv[1])) as peer:
        model = importlib.import_module("training.networks_stylegan3")
        for name, options in ALIAS_FREE.items():
            counts[name] = {}
            for resolution in RESOLUTIONS_OF_3:
                mapping = {"mapping_kwargs": {"num_layers": 2}}
                generator = model.Generator(512, 0, 512, resolution, 3, **mapping, **options)
                discriminator = peer.networks(resolution).discriminator
                counts[name][str(resolution)] = [
                    sum(parameter.numel() for parameter in network.parameters())
                    for network in (generator, discriminator)
                ]
    FILE.write_text(json.dumps(counts, indent=1) + "\n")
    print(FILE.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
