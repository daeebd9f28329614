# SPDX-License-Identifier: BSD-3-Clause
"""Every example in a docstring, the README and docs/ runs and prints what it says.

The site itself is made by ``make docs``, with warnings as errors; what Sphinx cannot see is here.
"""

import ast
import csv
import doctest
import importlib
import inspect
import os
import pkgutil
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resample_layers

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import conf  # noqa: E402

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(resample_layers.__path__, "resample_layers.")
    if not name.endswith("__main__")
]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
CODES = ("basicsr", "bigvgan", "mmcv", "nvidia", "rosinality")
# What teaches the op must show it
TAUGHT = ("README", "what_it_computes", "filters", "borders", "alias_free", "migrating")
WITH_EXAMPLES = {
    "resample_layers.alias_free",
    "resample_layers.compat.basicsr",
    "resample_layers.compat.mmcv",
    "resample_layers.compat.nvidia",
    "resample_layers.compat.rosinality",
    "resample_layers.filters",
    "resample_layers.layers",
    "resample_layers.ops.activation",
    "resample_layers.ops.dimensions",
    "resample_layers.ops.filtered_act",
    "resample_layers.ops.leaky_relu",
    "resample_layers.ops.native",
    "resample_layers.ops.upfirdn2d",
}


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    importlib.import_module(name)
    import sys

    result = doctest.testmod(sys.modules[name])
    assert not result.failed
    assert result.attempted > 0 or name not in WITH_EXAMPLES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page):
    result = doctest.testfile(str(page), module_relative=False)
    assert not result.failed
    assert result.attempted > 0 or page.stem not in TAUGHT or page.parent.name == "api"


def test_public_classes_and_functions_are_documented():
    """Shapes, errors and an example for what people import."""
    for name in ("UpFirDnUpsample", "UpFirDnDownsample", "UpFirDnSmooth"):
        text = getattr(resample_layers, name).__doc__
        for part in ("Args:", "Shape:", "Raises:", "Example:", "Source of the formula:"):
            assert part in text, (name, part)
    for function in (resample_layers.ops.upfirdn2d, resample_layers.ops.upfirdn2d_native):
        for part in ("Shape:", "Raises:", "Example:", "Source of the formula:"):
            assert part in function.__doc__, (function, part)


def rows_of(page):
    """The rows of those tables of a page whose second column names tests, without the heads."""
    rows = []
    for table in re.findall(r"(?:^\|.*\n?)+", (ROOT / "docs" / page).read_text(), re.MULTILINE):
        head, _, *body = [line.split("|")[1:-1] for line in table.splitlines()]
        if head[1].strip() in {"Test", "Tests"}:
            rows += body
    return rows


@pytest.mark.parametrize(("page", "least"), [("capabilities.md", 30), ("reliability.md", 15)])
def test_promises_name_tests_that_exist(page, least):
    rows = rows_of(page)
    assert len(rows) > least
    for promise, tests, *peer in rows:
        named = re.findall(r"`([^`]*)`", tests)
        assert named, promise
        assert all(cell.strip() for cell in peer), promise
        for name in named:
            path, function = name.split("::")
            tree = ast.parse((ROOT / path).read_text())
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert function in functions, name
            assert function.startswith("test_"), name


# Links and pictures


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """A file of the repository, and a heading of it where one is named."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in map(slug, titles), target


def slug(title):
    """A heading's anchor, as code hosts and MyST make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_pictures_are_there_for_light_and_dark_and_each_is_used():
    """Plots are named in both, samples of a network once, all with words for those who see none."""
    used = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = list(conf.PICTURE.finditer(text))
        assert len(found) == text.count("<picture>"), f"{page.name}: a picture is written otherwise"
        for match in found:
            for path in (match["light"], match["dark"]):
                used.add((page.parent / path).resolve().name)
            assert match["dark"] == match["light"].replace("-light.png", "-dark.png")
            assert len(re.search(r'alt="([^"]*)"', match[0])[1]) > 20, match["light"]
        for words, path in re.findall(r"!\[([^\]]*)\]\((images/[^)]*)\)", text):
            used.add(Path(path).name)
            assert len(words) > 20, path
    assert used == {path.name for path in (ROOT / "docs" / "images").iterdir()}


def test_the_script_draws_the_pictures_that_are_committed(tmp_path):
    """Same size, same content but for fonts; not those of networks that were trained."""
    command = [
        sys.executable,
        "-W",
        "error",
        str(ROOT / "scripts" / "pictures.py"),
        "--out",
        tmp_path,
    ]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert len(drawn) == 12
    for name in drawn:
        one, two = (
            np.asarray(Image.open(folder / name).convert("RGB"), dtype=np.float64)
            for folder in (tmp_path, ROOT / "docs" / "images")
        )
        assert one.shape == two.shape, name
        assert one.shape[1] > 1.9 * 860, f"{name} must have two pixels for each of the page"
        assert np.abs(one - two).mean() < 0.5, name  # without the filters of a layer: 0.6


# The site


def test_a_page_without_a_text_of_its_own_links_the_file_that_has_it():
    """In a clone these pages were blank."""
    for name, file in conf.BORROWED.items():
        first = (ROOT / "docs" / f"{name}.md").read_text().partition("\n")[0]
        assert f"[{file}](../{file})" in first


def test_a_page_for_the_site():
    """Links, pictures for both grounds, and what has no page."""
    text = """[op](docs/what_it_computes.md#the-formula), [licence](LICENSE), [far](https://a.b/c)

<picture>
  <source media="(prefers-color-scheme: dark)" srcset="docs/images/stride-dark.png">
  <img src="docs/images/stride-light.png" width="860" alt="a picture">
</picture>
"""
    assert (
        conf.to_site(text, ROOT / "README.md")
        == """\
[op](what_it_computes.md#the-formula), licence, [far](https://a.b/c)

```{image} images/stride-light.png
:class: only-light
:width: 860
:alt: a picture
```

```{image} images/stride-dark.png
:class: only-dark
:width: 860
:alt: a picture
```

"""
    )
    with pytest.raises(FileNotFoundError, match=r"README\.md links to docs/nothing\.md"):
        conf.to_site("[nothing](docs/nothing.md)", ROOT / "README.md")
    within = "[filters](../filters.md)\n\n```python\nlayers[0](x)\n```\n"
    assert conf.to_site(within, ROOT / "docs" / "api" / "ops.md") == within
    doctest = "```pycon\n>>> 1\n1\n\n```\n"  # the empty line is for doctest alone
    assert conf.to_site(doctest, ROOT / "README.md") == doctest.replace("\n\n", "\n")


def test_long_names_of_code_wrap_between_their_parts():
    """A browser breaks at <wbr>, and a copy of the text does not have it."""
    page = '<span class="pre">tests/test_docs.py::test_a</span> <span class="pre">--out</span> a_b'
    context = {"body": page}
    conf.let_names_wrap(None, "", "", context, None)
    assert context["body"] == (
        '<span class="pre">tests/<wbr>test_<wbr>docs.<wbr>py::<wbr>test_<wbr>a</span> '
        '<span class="pre whole">--out</span> a_b'
    )


def test_options_stay_whole_in_commands_that_wrap():
    """A browser breaks a line after a hyphen, and ``--`` alone at its end is no option."""
    block = '<div class="highlight-{} notranslate"><pre>{}\n</pre></div>'.format
    plain = "x --out y-z -v"
    context = {"body": block("text", plain) + block("pycon", plain)}
    conf.let_names_wrap(None, "", "", context, None)
    whole = '<span class="whole">{}</span>'.format
    command = f"x {whole('--out')} y-z {whole('-v')}"
    assert context["body"] == block("text", command) + block("pycon", plain)


@pytest.mark.parametrize(
    ("page", "module"),
    [("layers", "resample_layers"), ("ops", "resample_layers.ops")],
)
def test_every_public_name_is_in_the_reference(page, module):
    text = (ROOT / "docs" / "api" / f"{page}.md").read_text(encoding="utf-8")
    written = re.findall(r"\.\. auto(?:class|function):: (\w+)$", text, re.MULTILINE)
    own_pages = {"__version__", "filters", "geometry", "ops"}
    assert sorted(written) == sorted(set(importlib.import_module(module).__all__) - own_pages)


@pytest.mark.parametrize(
    "name", ["resample_layers", "resample_layers.ops", "resample_layers.compat"]
)
def test_module_docstrings_list_their_names(name):
    """As a list, which Sphinx renders, and completely."""
    module = importlib.import_module(name)
    items = re.findall(r"^- (``.*?)(?::|$)", module.__doc__, re.MULTILINE)
    listed = set(re.findall(r"``(\w+)``", " ".join(items)))
    families = re.compile("(1d|3d|Backward)$|^__version__$|^FusedLeakyReLU$")
    missing = {n for n in module.__all__ if n not in listed and not families.search(n)}
    assert listed
    assert not missing


@pytest.mark.parametrize("name", ["", ".ops", ".filters", *(f".compat.{n}" for n in CODES)])
def test_sections_of_docstrings_parse(name):
    """One exception or warning for each entry, its further lines indented, as napoleon reads it."""
    module = importlib.import_module(f"resample_layers{name}")
    public = getattr(module, "__all__", None) or [n for n in vars(module) if n[0] != "_"]
    texts = [inspect.getdoc(getattr(module, n)) or "" for n in public]
    sections = [
        section
        for text in texts
        for section in re.findall(r"^(?:Raises|Warns):\n((?:    .*\n?)+)", text, re.MULTILINE)
    ]
    assert sections
    for line in "".join(section.rstrip("\n") + "\n" for section in sections).splitlines():
        assert re.match(r" {8}|    (?:[A-Z]\w+(?:, )?)+: \S", line), line
        assert not re.search(r"\. [A-Z]\w+Error: ", line), line


def test_the_reference_has_the_replacements_of_every_code():
    """Sphinx documents what has a docstring of ours; the page itself names the rest."""
    page = (ROOT / "docs" / "api" / "compat.md").read_text(encoding="utf-8")
    directive = re.compile(r"automodule:: resample_layers\.compat\.(\w+)\n((?:   :.*\n)*)")
    sections = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        name, options = directive.search(section).groups()
        sections[name] = section, options
    assert sorted(sections) == sorted(resample_layers.compat.__all__)
    for name, (text, options) in sections.items():
        module = importlib.import_module(f"resample_layers.compat.{name}")
        left_out = re.findall(r"\w+", "".join(re.findall(r":exclude-members:(.*)", options)))
        for public in module.__all__:
            value = getattr(module, public)
            documented = inspect.isfunction(value) or inspect.isclass(value)
            if documented and public not in left_out:
                assert inspect.getdoc(value), public
                own = value.__module__ == module.__name__
                assert own or ":imported-members:" in options, public
            else:
                assert f"`{public}`" in text, f"{name}.{public}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_of_python_fit_the_column_of_the_site(page):
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:python|pycon)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    long = [line for block in blocks for line in block.splitlines() if len(line) > 92]
    assert not long


# What the README claims


def test_the_readme_is_one_screen_of_each_thing():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 200
    assert text.index("*taps*") < text.index("[1, 3, 3, 1]")


def test_the_readme_s_numbers_stand_in_the_results():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    times = {}
    with open(ROOT / "benchmarks" / "rows" / "cpu.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            call = tuple(row[name] for name in ("shape", "layout", "op", "kernel"))
            times.setdefault(call, {})[row["formulation"]] = float(row["time / floor"])
    for title, formulation in (
        ("the vendored copies' way", "zero-stuffing"),
        ("a depthwise convolution", "depthwise"),
    ):
        ratios = [time[formulation] / time["compiled"] for time in times.values()]
        figures = f"| median {statistics.median(ratios):.3g}, least {min(ratios):.3g} |"
        line = next(line for line in readme.splitlines() if title in line)
        assert figures in line, f"rows/cpu.csv has {figures}"
    gpu = results.partition("<!-- begin gpu -->")[2]
    for figures in (
        "median 2.86, least 1.07",
        "median 0.68, least 0.32",
        "median 0.49, least 0.25",
    ):
        assert figures in readme
        assert figures in gpu
    gallery = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    for name, share in (("strided convolution", "43.6"), ("UpFirDnDownsample", "94.2")):
        assert f"{share} %" in readme
        columns = re.search(rf"^{name} +(.*)$", gallery, re.MULTILINE)[1].split("  ")
        assert [column.split()[0] for column in columns if column][2] == share
