# SPDX-License-Identifier: BSD-3-Clause
"""Tools that a machine may lack: their tests are skipped, or fail where they are required."""

import contextlib
import os
import shutil
import signal
import subprocess
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


def run_group(command: list[str], timeout: float, **options) -> tuple[int, str, str]:
    """A command's exit status, output and errors; all processes that it started end with it.

    ``subprocess.run`` would kill the command alone when the time is over.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output, errors


@contextlib.contextmanager
def limited(name: str, value: int):
    """Lower a limit that the system sets to this process."""
    require("limits of the system", found=resource is not None)
    number = getattr(resource, name)
    soft, hard = resource.getrlimit(number)
    resource.setrlimit(number, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(number, (soft, hard))


def files_of_at_most(size: int):
    """Let every write beyond so many bytes of a file fail, as on a full disk, by the system."""
    return limited("RLIMIT_FSIZE", size)


def no_more_files():
    """Let the opening of every file fail."""
    return limited("RLIMIT_NOFILE", 0)
