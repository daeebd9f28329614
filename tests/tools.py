# SPDX-License-Identifier: BSD-3-Clause
"""Tools that a machine may lack: their tests are skipped, or fail where they are required."""

import contextlib
import os
import shutil
import sys

import pytest

try:
    import resource
except ImportError:  # on Windows
    resource = None


def require(tool: str, *, found: bool | None = None) -> str:
    """The path of a tool; without it the test is skipped, and the summary says NOT RUN.

    ``RESAMPLE_LAYERS_REQUIRE=nvcc,readelf`` makes the absence of those an error. ``found`` is for
    what is no program, such as a library that was built.
    """
    path = shutil.which(tool) or "" if found is None else tool if found else ""
    if not path:
        if tool in os.environ.get("RESAMPLE_LAYERS_REQUIRE", "").split(","):
            pytest.fail(f"RESAMPLE_LAYERS_REQUIRE asks for {tool}, and there is none")
        pytest.skip(f"no {tool}")
    return path


def require_compiler_of(backend: str) -> None:
    """That of torch.compile's Inductor, for a CPU; its other backends compile nothing."""
    if backend == "inductor":
        require({"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++"))


@contextlib.contextmanager
def files_of_at_most(size: int):
    """Let every write beyond so many bytes of a file fail, as on a full disk, by the system."""
    require("limit on the size of files", found=resource is not None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
