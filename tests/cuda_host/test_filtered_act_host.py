# SPDX-License-Identifier: BSD-3-Clause
"""The CUDA kernels of filtered activations without a GPU, as test_cuda_host.py has the others.

Needs g++. A missing tool is said in a line ``NOT RUN: step, reason``;
``RESAMPLE_LAYERS_REQUIRE=asan`` makes it an error.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cuda_host import EXTRA, FILTERED, ORDERS, barriers, build_emulator, run


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels built for the host, with sanitizers where the compiler has them."""
    return build_emulator(tmp_path_factory, "filtered_act", "filtered_act.mk")


@pytest.mark.parametrize("order", ORDERS)
def test_generic(emulator: Path, order: str) -> None:
    """Any factors, taps, pads, ends and layouts equal the oracle, forward and backward."""
    run(emulator, "generic", str(200 * max(EXTRA, 1)), order)


@pytest.mark.parametrize("order", ORDERS)
def test_every_row(emulator: Path, order: str) -> None:
    """The rows of the table equal the oracle by small tiles, forward and backward."""
    run(emulator, "table", str(10 * max(EXTRA, 1)), order)


@pytest.mark.parametrize("number", barriers(FILTERED))
def test_every_barrier_is_needed(emulator: Path, number: int) -> None:
    """Without this barrier, a call that meets it goes wrong."""
    run(emulator, "barrier", str(number))
