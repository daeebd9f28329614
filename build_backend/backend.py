# SPDX-License-Identifier: BSD-3-Clause
"""setuptools, asked for torch only where there is a compiler to use it.

An isolated build installs what these hooks return: gigabytes, which an installation without
compiled kernels must not wait for.
"""

from __future__ import annotations

from typing import Any

import toolchain
from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403


def _requirements(others: list[str]) -> list[str]:
    return [*others, *(toolchain.BUILD_REQUIREMENTS if toolchain.find_cxx() else [])]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    return _requirements(build_meta.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    return _requirements(build_meta.get_requires_for_build_editable(config_settings))
