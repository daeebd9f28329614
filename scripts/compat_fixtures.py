#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Write ``tests/compat_fixtures.npz`` anew: what the originals compute, as numbers.

``python scripts/compat_fixtures.py PEERS``; the folder is described in
``tests/compat_originals.py``, which also holds the calls.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import compat_originals  # noqa: E402


def write(peers: str) -> None:
    """Run every call on the originals in a folder of checkouts, and write what they compute."""
    originals = compat_originals.load(peers)
    originals["nvidia"] = originals["stylegan3"]
    arrays = {call.name: call.run(originals[call.convention]) for call in compat_originals.CALLS}
    for i, (taps, arguments) in enumerate(compat_originals.FILTERS):
        arrays[f"filter {i}"] = originals["nvidia"]["setup_filter"](taps, **arguments)
    for i, taps in enumerate(compat_originals.KERNELS):
        arrays[f"kernel {i}"] = originals["rosinality"]["make_kernel"](taps)
    for code in compat_originals.LINES_OF:
        with compat_originals.names_of(peers, code) as names:
            for line in (line for line in compat_originals.LINES if line.code == code):
                for shape in line.shapes():
                    arrays[line.name(shape)] = line.run(line.theirs, names, shape)
    np.savez_compressed(
        ROOT / "tests" / "compat_fixtures.npz",
        **{name: value.detach().numpy() for name, value in arrays.items()},
    )
    print(f"{len(arrays)} arrays")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("peers", metavar="PEERS", help="the folder with checkouts of the originals")
    folder = parser.parse_args().peers
    if not Path(folder).is_dir():
        parser.error(f"PEERS must be a folder, got {folder!r}")
    write(folder)


if __name__ == "__main__":
    main()
