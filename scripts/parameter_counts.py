# SPDX-License-Identifier: BSD-3-Clause
"""Count the original networks' parameters: ``python scripts/parameter_counts.py PEERS``.

``PEERS`` holds checkouts of the originals, as for checkpoint_fixtures.py. Writes
``tests/fixtures/parameter_counts.json``: for each code and resolution, with the channels of
StyleGAN2's configuration f, what is trained in the generator and in the discriminator.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.checkpoint_fixtures import original

CODES = ("rosinality", "ada", "stylegan3")
RESOLUTIONS = (64, 256, 1024)
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
    FILE.write_text(json.dumps(counts, indent=1) + "\n")
    print(FILE.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
