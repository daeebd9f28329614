# SPDX-License-Identifier: BSD-3-Clause
"""Where code names a module otherwise than by an import, whatever that module is."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .syntax import UNREADABLE, Parts, base_of, chain, parse

# Functions whose first argument is the name of a module, or of what a module holds
LOADERS = (
    "import_module", "__import__", "find_spec", "find_loader", "get_loader", "run_module",
    "resolve_name", "importorskip",
)  # fmt: skip
# Functions that may take such a name, with a dot in it, where others take an object or an address
PATCHERS = ("patch", "setattr", "delattr", "locate")
RUNNERS = ("exec", "eval", "timeit", "repeat", "Timer")  # of Python that is given as a string
PACKAGES = ("packages", "py_modules")  # arguments of setup
PYTHON = (
    r"(?:\b(?:python|pypy)[\d.]*|\$[({]?(?=\w*PYTHON)\w+[)}]?)"
    r"(?:\s+-[WX]\s+\S+|\s+-[A-VYZa-ln-z]\S*)*"
)
COMMAND = re.compile(rf"{PYTHON}\s+(?:-m\s+(?P<module>[\w.]+)|(?P<file>\S+\.pyw?)(?=[\s;&|)]|$))")
ENTRY = re.compile(r"(?:[\w.-]+\s*=\s*)?([\w.]+):([\w.]+)(?:\s*\[.*)?")
LISTS = re.compile(
    r"""^[ \t]*["']?(?:packages|py[-_]modules)["']?\s*=\s*(\[[^\]]*\]|[^\n\[]*(?:\n[ \t]+\S.*)*)""",
    re.MULTILINE,
)
# A comment of a script, or a quoted text, which is kept: a "#" in it begins no comment
COMMENT = re.compile(r"""("[^"]*"|'[^']*')|(?:^|(?<=\s))#.*""")
NAMES = re.compile(r"[\w.]+")
OBJECTS = re.compile(r"""(?<=["'\s=])[\w.]+:[\w.]+(?=["'\s\[]|$)""", re.MULTILINE)


class Mention(NamedTuple):
    """What names a module in a file."""

    line: int
    text: str  # as it stands there
    parts: Parts  # of the full name; none: it is not known, or the text is the path of a file


def entry_point(text: str) -> Parts:
    """The parts of ``net.op:main``, with ``name =`` before it or not; none: it is no such text."""
    found = ENTRY.fullmatch(text) if ":" in text else None
    return (*found[1].split("."), *found[2].split(".")) if found else ()


def in_python(nodes: list[Any], home: Parts, is_setup: bool) -> Iterator[Mention]:
    """What calls, ``sys.modules[...]`` and lists of words in the folder ``home`` name."""
    texts: Sequence[ast.expr]
    for node in nodes:
        if isinstance(node, ast.Call):
            yield from _in_call(node, home)
            given = [k.value for k in node.keywords if is_setup and k.arg in PACKAGES]
            texts = [v for keyword in given for v in ast.walk(keyword) if isinstance(v, ast.expr)]
        elif isinstance(node, ast.Subscript) and chain(node.value) == ["sys", "modules"]:
            texts = [node.slice] * isinstance(node.ctx, ast.Load)
        elif isinstance(node, (ast.List, ast.Tuple)):
            texts = _after("-m", node)
        else:
            continue
        for value in texts:
            if name := _text(value):
                yield Mention(value.lineno, name, tuple(name.split(".")))


def stubs(nodes: list[Any]) -> Iterator[ast.AST]:
    """The strings, or their pieces, that name what code itself puts into ``sys.modules[...]``."""
    for node in nodes:
        is_stored = isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
        if is_stored and chain(node.value) == ["sys", "modules"]:
            yield from getattr(node.slice, "values", [node.slice])  # of an f-string


def quoted_types(nodes: list[Any]) -> tuple[set[Any], list[Any]]:
    """The strings that are types in annotations, and the nodes of the code that they hold."""
    types: list[Any] = [
        part
        for node in nodes
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part
    ]
    strings, inside = set(), []
    for part in types:  # the list grows by what is in each part
        if isinstance(part, ast.Subscript) and chain(part.value)[-1] in ("Literal", "Annotated"):
            continue  # a string in there need be no type
        types.extend(ast.iter_child_nodes(part))
        if not (text := _text(part)):
            continue
        try:
            code = parse(text.strip()).body
        except UNREADABLE:  # it stays a string
            continue
        if len(code) == 1 and isinstance(code[0], ast.Expr):
            strings.add(part)
            types.append(code[0].value)
            inside += [ast.copy_location(node, part) for node in ast.walk(code[0].value)]
    return strings, inside


def _in_call(call: ast.Call, home: Parts) -> Iterator[Mention]:
    """What a function that takes the name of a module is given as a string."""
    function = chain(call.func)[-1]
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}

    def argument(name: str, place: int) -> Any:
        return call.args[place] if len(call.args) > place else keywords.get(name)

    first = argument("name", 0)
    name = _text(first)
    if not name or not (function in LOADERS or (function in PATCHERS and "." in name)):
        return
    level = len(name) - len(name.lstrip("."))
    names = re.split("[.:]", name.lstrip("."))
    inside = [""]
    if function == "__import__":
        number = argument("level", 4)
        given = isinstance(number, ast.Constant) and isinstance(number.value, int)
        level = number.value if given else 0
        inside += map(_text, getattr(argument("fromlist", 3), "elts", []))
    elif level:
        package = argument("package", 1)
        if written := _text(package):
            home = tuple(written.split("."))
        elif chain(package) not in (["__package__"], ["__name__"]):
            yield Mention(first.lineno, name, ())
            return
    parts = (*home[: len(home) - level + 1], *names) if level else tuple(names)
    for last in inside:
        yield Mention(first.lineno, name, (*parts, last) if last else parts)


def _after(option: str, words: ast.List | ast.Tuple) -> Sequence[ast.expr]:
    """What follows an option in a list of words, such as that of a command line."""
    pairs = zip(words.elts, words.elts[1:], strict=False)
    return [value for word, value in pairs if _text(word) == option]


def programs(nodes: list[Any]) -> Iterator[tuple[int, str]]:
    """The line and the text of Python that code gives to ``exec``, ``timeit`` or ``python -c``."""
    for node in nodes:
        if isinstance(node, ast.Call) and chain(node.func)[-1] in RUNNERS:
            given: Sequence[ast.expr] = [*node.args, *(k.value for k in node.keywords)]
        elif isinstance(node, (ast.List, ast.Tuple)):
            given = _after("-c", node)
        else:
            continue
        yield from ((value.lineno, text) for value in given if (text := _text(value)))


def doctests(nodes: list[Any]) -> Iterator[tuple[int, str]]:
    """The line and the text of each example of a doctest."""
    for node in nodes:
        text = _text(node)
        if text and ">>> " in text:
            try:
                examples = doctest.DocTestParser().get_examples(text)
            except ValueError:  # it is no doctest
                continue
            yield from ((node.lineno + example.lineno, example.source) for example in examples)


def imported(program: str) -> Iterator[Parts]:
    """What the absolute imports of a program name."""
    try:
        nodes = list(ast.walk(parse(program)))
    except UNREADABLE:
        return
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0):
            for alias in node.names:
                yield (*base_of((), node), *alias.name.split("."))


def in_commands(text: str) -> Iterator[Mention]:
    """Modules and files that the lines of a script give to Python."""
    for number, line in enumerate(text.splitlines(), 1):
        line = COMMENT.sub(lambda found: found[1] or "", line)
        plain = re.sub(r"""["',\[\]]""", " ", line)  # a list of a Dockerfile becomes a command
        for found in COMMAND.finditer(plain):
            if module := found["module"]:
                yield Mention(number, module, tuple(module.split(".")))
            else:
                yield Mention(number, found["file"], ())


def in_settings(text: str) -> Iterator[Mention]:
    """Packages and entry points that ``pyproject.toml`` or ``setup.cfg`` names."""
    found = [(part.start(1), part[1]) for part in LISTS.finditer(text)]
    names = [(start + n.start(), n[0]) for start, part in found for n in NAMES.finditer(part)]
    names += [(n.start(), n[0]) for n in OBJECTS.finditer(text)]
    for start, name in names:
        yield Mention(text.count("\n", 0, start) + 1, name, tuple(re.split("[.:]", name)))


def _text(node: Any) -> str:
    """The string that stands there, or none."""
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_text else ""
