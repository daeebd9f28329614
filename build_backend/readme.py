# SPDX-License-Identifier: BSD-3-Clause
"""The README as an index shows it: its links lead to the repository, where it has an address.

The address is ``Source`` of ``[project.urls]`` in pyproject.toml. Standard library only.
"""

from __future__ import annotations

import re
from pathlib import Path

# The target of a link of Markdown, or of an attribute of HTML, that is a file of the repository
LINK = re.compile(r'(?P<before>\]\(|\b(?:src|srcset|href)=")(?P<path>(?![\w+.-]+:|[#/])[^\s)"]+)')
PICTURES = (".png", ".svg", ".jpg", ".gif", ".webp")


def read_readme(root: Path, version: str) -> str:
    """The text of README.md; with a source address, its relative links are absolute.

    They then name the files of the tag ``v<version>``. Without an address they stay as they are.
    """
    text = (root / "README.md").read_text(encoding="utf-8")
    source = re.search(
        r'^Source = "(.*?)/?"', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    return make_links_absolute(text, source[1], version) if source else text


def make_links_absolute(text: str, source: str, version: str) -> str:
    """Each relative link under ``source``: pages under ``blob``, pictures under ``raw``."""

    def absolute(match: re.Match[str]) -> str:
        kind = "raw" if match["path"].endswith(PICTURES) else "blob"
        return f"{match['before']}{source}/{kind}/v{version}/{match['path']}"

    return LINK.sub(absolute, text)
