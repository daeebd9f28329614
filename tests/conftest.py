# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures for all tests, and a summary in which no skipped test goes unseen."""

import os
import tempfile
from collections import Counter

import pytest
import torch

from resample_layers.ops import extension

if extension.choices["cpu"].backend == "native":  # said once; the processes of tests are quiet
    os.environ[extension.VARIABLE] = "native"
REQUIRE_CUDA = os.environ.get("RESAMPLE_LAYERS_REQUIRE_CUDA") == "1"


def pytest_configure(config):
    """Nothing of the user's own reaches the tests, nor the processes that they start."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    # Inductor keeps graphs from run to run, and does not see that our operators have changed
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{folder.name}/inductor")
    # Where Inception's weights are found, every training measures FID
    os.environ["TORCH_HOME"] = f"{folder.name}/torch"
    # Commits are not signed; tests quote git's words; files can be read by other users
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        os.environ.pop(name, None)
    os.environ |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "commit.gpgsign",
        "GIT_CONFIG_VALUE_0": "false",
        "LANGUAGE": "en",
    }
    os.umask(0o022)


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> torch.device:
    """Every device that the op has kernels for."""
    if request.param == "cuda" and not torch.cuda.is_available():
        if REQUIRE_CUDA:
            pytest.fail("RESAMPLE_LAYERS_REQUIRE_CUDA=1, but torch sees no CUDA device")
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture
def args(device) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and the kernel of ``calls.call``."""
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, device=device)
    return x, torch.randn(3, 4, dtype=torch.float64, device=device)


@pytest.fixture(scope="module")
def one_thread():
    """Tensors this small only wait for a second thread, and for long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_report(monkeypatch):
    """For runs whose evaluation does not matter: it takes longer than they."""
    monkeypatch.setattr("examples.stylegan.train.report", lambda *args: None)


def pytest_terminal_summary(terminalreporter):
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"NOT RUN: {count} tests, {reason}")
