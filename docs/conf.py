# SPDX-License-Identifier: BSD-3-Clause
"""How Sphinx makes the site: ``make docs`` writes it to build/docs. It needs no network.

Some pages are files that stand elsewhere in the repository, such as the README. :data:`BORROWED`
names them, so that no text is written twice. Every page is Markdown that a code host shows as well;
:func:`to_site` changes the few things in it that a host and Sphinx write differently.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from resample_layers.version import __version__  # noqa: E402

project = "resample_layers"
author = "the authors of resample_layers"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
exclude_patterns = ["images"]

# A link to what is not there is an error, and so is a reference in a docstring
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"((torch|scipy|collections|numpy)\..*|Tensor)")
]  # other sites' pages
myst_heading_anchors = 3
pygments_style, pygments_dark_style = "friendly", "github-dark"

autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # torch's docstrings refer to torch's pages
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
maximum_signature_line_length = 60
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shape"]
highlight_language = "text"

BORROWED = {
    "index": "README.md",
    "extending": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "results": "benchmarks/RESULTS.md",
    "gpu_notes": "benchmarks/NOTES.md",
}
"""Pages that are files outside of docs/. The first line of such a page is a link to its file, for
readers of the repository, and the file takes its place; what else the page has comes after it."""

FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="(?P<dark>[^"]+)">\s*'
    r'<img (?P<attributes>[^>]*)src="(?P<light>[^"]+)"(?P<more>[^>]*)>\s*</picture>'
)
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
IMAGE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def to_site(text: str, origin: Path) -> str:
    """Markdown as a code host shows it -> Markdown for Sphinx, of a file at ``origin``.

    1. A ``<picture>`` for light and dark becomes two images, of which the theme shows one.
    2. A link to a page of the site goes to that page. What is linked and is no page, such as a
       script, has no address here: its name stays.
    3. The empty line that ends a doctest goes.
    """
    docs = ROOT / "docs"
    folder = origin.parent if docs in origin.parents else docs  # of the page that is made

    def here(target: str) -> str:
        return os.path.relpath(origin.parent / target, folder)

    def picture(match: re.Match[str]) -> str:
        words = match["attributes"] + match["more"]
        options = dict(re.findall(r'(alt|width)="([^"]*)"', words))
        lines = [f":{name}: {' '.join(value.split())}" for name, value in options.items()]
        return "\n".join(
            "\n".join(
                ["```{image} " + here(match[mode]), f":class: only-{mode}", *lines, "```", ""]
            )
            for mode in ("light", "dark")
        )

    def link(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if "://" in target:
            return match[0]
        path = (origin.parent / target).resolve()
        if not path.exists():
            raise FileNotFoundError(f"{origin.relative_to(ROOT)} links to {target}")
        page = pages.get(path)
        if page is None:
            return match["text"]
        return f"[{match['text']}]({Path(os.path.relpath(page, folder)).as_posix()}{anchor})"

    pages = {(ROOT / file).resolve(): docs / f"{name}.md" for name, file in BORROWED.items()}
    pages |= {path.resolve(): path for path in docs.glob("**/*.md") if path.stem not in BORROWED}
    parts = FENCED.split(text)  # prose and blocks of code in turn
    for i in range(0, len(parts), 2):
        prose = PICTURE.sub(picture, parts[i])
        prose = IMAGE.sub(lambda match: f"![{match['text']}]({here(match['target'])})", prose)
        parts[i] = LINK.sub(link, prose)
    parts[1::2] = [re.sub(r"\n\n```$", "\n```", block) for block in parts[1::2]]
    return "".join(parts)


def read_page(app: Any, name: str, source: list[str]) -> None:
    """Give Sphinx a page as the site has it."""
    own = ROOT / "docs" / f"{name}.md"
    text = to_site(source[0], own) if own.is_file() else source[0]
    if name in BORROWED:
        file = ROOT / BORROWED[name]
        text = to_site(file.read_text(encoding="utf-8"), file) + text.partition("\n")[2]
        app.env.note_dependency(str(file), docname=name)
    source[0] = text


COMMAND = re.compile(r'<div class="highlight-(?:none|text|sh) .*?</pre>', re.DOTALL)  # it wraps
OPTION = re.compile(r"(?<![\w-])--?\w[\w-]*")


def let_names_wrap(app: Any, name: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Let a browser break long words of code between their parts, and no short one at a hyphen.

    Nor does it break an option of a command, such as ``--out``, in a block of code that wraps.
    """

    def word(match: re.Match[str]) -> str:
        if len(match[1]) <= 20:
            return f'<span class="pre whole">{match[1]}</span>'
        parts = re.sub(r"(?<=[_/.:=(\[])(?=\w)", "<wbr>", match[1])
        return f'<span class="pre">{parts}</span>'

    if "body" in context:
        body = re.sub(r'<span class="pre">([^<>&]+)</span>', word, context["body"])
        context["body"] = COMMAND.sub(
            lambda match: OPTION.sub(r'<span class="whole">\g<0></span>', match[0]), body
        )


def shown_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Leave out the signature that autograd gives its Functions: it says nothing of ``apply``."""
    return ("", returns) if signature == "(*args, **kwargs)" else None


def setup(app: Any) -> None:
    app.connect("autodoc-process-signature", shown_signature)
    app.connect("source-read", read_page)
    app.connect("html-page-context", let_names_wrap)
