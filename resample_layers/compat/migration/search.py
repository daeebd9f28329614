# SPDX-License-Identifier: BSD-3-Clause
"""Finding the copies of a code, and what imports them."""

from __future__ import annotations

import ast
import io
import itertools
import os
import re
import stat
import tokenize
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import mentions
from .changes import CODE, Changes, is_folder, unfinished
from .copies import CODES, COMPAT, SOURCES, Copied, get
from .syntax import UNREADABLE, Parts, base_of, bound_names, parse, read, walk_top

PKG_RESOURCES = (
    "setuptools 82 dropped pkg_resources; write {}: "
    "from torch.torch_version import TorchVersion as parse_version"
)


class Known(NamedTuple):
    """What is known of the dotted name of a copied package, or of a module in it."""

    ours: str | None  # the module of compat that has the same functions
    gone: bool  # whether it is deleted
    replaced: bool  # whether an import of it becomes an import of ours
    lacking: str = ""  # the name of a copied package that is nowhere under the folder
    path: Path | None = None  # where it lies, without ".py"


class Read(NamedTuple):
    """Code that reads names behind a module: ``rest`` behind what ``first`` stands for."""

    path: Path
    line: int
    found: Parts  # the full name of what ``first`` stands for; of a package, where that is empty
    rest: Parts
    first: str  # empty: the one name of ``rest`` stands alone


SETTINGS = ("pyproject.toml", "setup.cfg")
SCRIPTS = (".sh", ".bash", ".zsh", ".mk", ".yml", ".yaml", "Makefile", "Dockerfile", "tox.ini")


class Migration:
    """What is to be changed and deleted under ``root``, and what stands against it."""

    def __init__(self, code: str, root: Path) -> None:
        self.code, self.root, self.copies = code, root, CODES[code]
        beside = {copied.beside for copied in self.copies if copied.beside}
        modules = {name for copied in self.copies for name in copied.modules}
        self.modules = {name.rpartition(".")[2] for name in modules | beside}
        self.ours = {code, *(name for copied in self.copies for name in copied.modules.values())}
        self.generic = any(copied.generic for copied in self.copies)
        self.loaders = {copied.loader for copied in self.copies if copied.loader}
        self.known: dict[Parts, Known] = {}
        self.longest = 0  # the most parts that a known name has
        self.removed: list[Path] = []  # files and folders
        self.beside: list[Path] = []  # those of them that are ``Copied.beside``
        self.edited: dict[Path, bytes] = {}
        self.lacking: dict[Path, set[str]] = {}  # packages that files import, and that are nowhere
        self.log: list[str] = []
        self.by_hand: list[str] = []  # what the user must do
        self.problems: list[str] = []
        self.deleted: list[Path] = []  # the files in what is removed
        self.reads: list[Read] = []  # what is looked at when all new texts are there
        self.given: dict[Parts, set[str]] = {}  # by deleted modules
        self.held: dict[Path, dict[str, Any]] = {}  # what the names at the top of a file stand for
        self.files: dict[tuple[Parts, Path], Path | None] = {}  # of modules that stay
        if root in (Path(root.anchor), _home()):
            self.problems.append(f"folder must be that of one code, got {root}")
        elif left := unfinished(root):
            self.problems.append(left)
        else:
            self._search()

    @property
    def changes(self) -> Changes:
        """All that is to be changed and deleted."""
        return Changes(self.root, self.edited, self.removed, self.deleted)

    def _search(self) -> None:
        """Find the copies, then what imports them."""
        for copied in self.copies:
            if copied.installed:  # another "op" may be anything
                self._learn(copied, tuple(copied.package.split(".")), False, False)
        files, others, unread = _files(self.root)
        folders = {path.parent for path in files}
        for copied in self.copies:
            if copied.deleted:
                self._find_copies(copied, folders)
        found = self.removed or self.problems
        lacking = [] if found else [copied for copied in self.copies if not copied.installed]
        for copied in lacking:  # to find what imports a copy that is not there
            for folder in folders:
                package = *folder.relative_to(self.root).parts, copied.package
                self._learn(copied, package, False, True, lacking=copied.package)
        self.longest = max(map(len, self.known), default=0)
        inside = [path for gone in self.removed for path in (gone, *gone.rglob("*"))]
        self.deleted = [p for p in inside if not is_folder(p) and p.parent.name != "__pycache__"]
        named = [path.relative_to(self.root).parts for path in self.deleted]
        self.paths = {"/".join(parts[i:]) for parts in named for i in range(len(parts))}
        self.paths.discard("__init__.py")  # any package has one
        self.words = self._words()
        for error in unread if self.removed else []:
            sentence = f"it may import what is deleted, and cannot be read: {error}"
            self._tell(Path(error.filename), None, sentence)
        for path in (path for path in files if not self._is_removed(path)):
            if os.path.islink(path) and self._is_removed(target := _real(path)):
                self._tell(path, None, f"it is a link to {self.name(target)}, which is deleted")
            elif _is_file(path):
                self._read(path)
        for one in self.reads:
            self._check_read(one)
        for path in (path for path in others if self.removed and not self._is_removed(path)):
            self._check_other(path)
        for path in self.beside if self.edited else []:
            ours = f"{COMPAT}.{self.code}"
            sentence = f"compare its formulas with those of {ours}: only names were compared"
            self._tell(path, None, sentence, by_hand=True)
        for name in (copied.package for copied in lacking):
            self._tell_who_lacks(name, files)

    def _words(self) -> re.Pattern[bytes]:
        """One of these stands in each file that has anything to do with a copy."""
        words = [copied.package.rpartition(".")[2] for copied in self.copies] + ["pkg_resources"]
        words += {copied.beside for copied in self.copies if copied.beside}
        words += [n for copied in self.copies if not copied.generic for n in copied.modules]
        words += [re.escape(name) for name in self.paths if "/" not in name]
        return re.compile(os.fsencode(rf"\b({'|'.join(words)})\b"))

    def _tell_who_lacks(self, name: str, files: Sequence[Path]) -> None:
        """A package that is nowhere under the folder, and that files import, is the problem."""
        users = [path for path, names in self.lacking.items() if name in names]
        if not users:
            return
        self.problems = [f"no copy of {name} was found under {self.root}"]
        self.problems += [f"{self.name(path)}: it imports {name}" for path in users]
        links = [p for p in files if p.name == name and p.is_symlink()]
        self.problems += [f"{self.name(p)}: it is a link to {_real(p)}" for p in links]

    def name(self, path: Path) -> str:
        """A path as it is printed."""
        return path.relative_to(self.root).as_posix()

    def _learn(
        self,
        copied: Copied,
        package: Parts,
        gone: bool,
        whole: bool,
        path: Path | None = None,
        lacking: str = "",
    ) -> None:
        """``gone``: the modules are deleted. ``whole``: so is the package, which has no others."""
        ours = self.code if copied.exports else None
        self.known[package] = Known(ours, gone and whole, whole, lacking, path)
        for module, name in copied.modules.items():
            parts = tuple(module.split("."))
            place = path and path.joinpath(*parts)
            self.known[package + parts] = Known(name, gone, True, lacking, place)

    def _find_copies(self, copied: Copied, folders: set[Path]) -> None:
        name = copied.package.rpartition(".")[2]
        homes: dict[Path, bool] = {}  # the copies, and whether the package goes as a whole
        for folder in sorted(f for f in folders | {f.parent for f in folders} if f.name == name):
            there = sorted(folder.iterdir())
            parts = [path for path in there if path.name.removesuffix(".py") in copied.modules]
            if len(parts) < copied.least:  # another package of this name
                continue
            if folder == self.root or not folder.is_relative_to(self.root):
                self.problems += [f"folder must be that of the code above {name}, got {self.root}"]
                continue
            parts += [path for path in there if SOURCES.fullmatch(path.name)]
            left = {path.name for path in there if path not in parts}
            homes[folder] = copied.exports and left <= {"__init__.py", "__pycache__"}
            self.removed += [folder] if homes[folder] else parts
            file = folder.parent / f"{copied.beside}.py"
            if copied.beside and file not in self.removed and self._replaces(file):
                self.removed.append(file)
                self.beside.append(file)
        for folder, whole in homes.items():
            for package in self._names(folder, homes):
                self._learn(copied, package, True, whole, folder)
        modules = [file.with_suffix("") for file in self.beside]
        for module in modules:
            for package in self._names(module, modules):
                self.known[package] = Known(self.code, True, True, path=module)

    def _replaces(self, path: Path) -> bool:
        """Whether a file only defines classes and functions, one at least, and we have them all."""
        try:
            body = parse(path.read_bytes()).body
        except UNREADABLE:
            return False
        body = [n for n in body if not isinstance(n, (ast.Import, ast.ImportFrom))]
        texts = [n for n in body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
        names = {
            getattr(n, "name", None) for n in body if n not in texts
        }  # None: it is something else
        return bool(names) and names <= set(get(self.code).__all__)

    def _given(self, module: Parts) -> set[str]:
        """The names that a star import of a deleted module gives."""
        names: set[str] = set()
        modules, seen = [module], set()
        for wanted in modules:  # the list grows by what their star imports name
            for file in self.deleted:
                parts = file.relative_to(self.root).with_suffix("").parts
                name = parts[:-1] if parts[-1] == "__init__" else parts
                if file in seen or file.suffix != ".py" or name[-len(wanted) :] != wanted:
                    continue
                seen.add(file)
                try:
                    nodes = list(walk_top(parse(file.read_bytes())))
                except UNREADABLE:
                    continue
                names |= {local for node in nodes for local in bound_names(node)}
                for node in nodes:
                    if isinstance(node, ast.ImportFrom):
                        base = base_of(parts[:-1], node)
                        if node.names[0].name == "*" and base not in modules:
                            modules.append(base)
                        if base[:-1] == name:  # a package has each module that it has imported
                            names.add(base[-1])
        return {name for name in names if not name.startswith("_")}

    def _names(self, path: Path, copies: Container[Path]) -> Iterator[Parts]:
        """The dotted names of a copy: people put any folder above it on the path."""
        home = path.relative_to(self.root).parts
        for i in range(len(home)):
            other = self.root.joinpath(*home[i:])
            if other in copies or not _is_module(other):
                yield home[i:]

    def _find(self, parts: Parts, beside: Path) -> Known | None:
        """What is known of a name; what a module in a package holds is known as the module is.

        Of a module that has no package, such as "activations", only its own name is known: keys of
        state dicts begin so too.
        Python finds the modules in the folder ``beside`` before others: the root for a full name.
        """
        for n in range(min(len(parts), self.longest), 0, -1):
            name = parts[:n]
            if name in self.known and _is_module(beside.joinpath(*name)):
                name = beside.relative_to(self.root).parts + name
            if known := self.known.get(name):
                in_module = n > 1 and parts[n - 1] in self.modules
                return known if n == len(parts) or in_module else None
        return None

    def _gone(self, parts: Parts, beside: Path) -> int:
        """How many parts of a name make that of something deleted; 0: nothing is."""
        for n in range(1, min(len(parts), self.longest) + 1):
            if (known := self._find(parts[:n], beside)) and known.gone:
                return n
        return 0

    def _is_removed(self, path: Path) -> bool:
        return any(path.is_relative_to(gone) for gone in self.removed)

    def _is_gone(self, path: Path, name: str, is_import: bool = True) -> bool:
        """Whether a name that code in ``path`` uses is of something deleted; "op" is too short."""
        dotted, file = name.lstrip(".").split("."), name.replace("\\", "/").lstrip("./")
        if file in self.paths and "/" not in file:  # it may name a file that is left
            names = file, file.removesuffix(".py")
            places = [folder / name for folder in (path.parent, self.root) for name in names]
            return all(self._is_removed(place) or not place.exists() for place in places)
        relative = name[:1] == "." and f"{dotted[0]}.py" in self.paths
        relative = relative and (is_import or not self.generic)  # ".filter" may be of a checkpoint
        if file in self.paths or relative:
            return True
        entry = mentions.entry_point(name)
        parts = entry or tuple(dotted)
        if len(parts) == 1:
            return False
        known, n = self._find(parts, path.parent), self._gone(parts, path.parent)
        if (known is not None and known.gone) or (entry and n > 1):
            return True
        return 0 < n < len(parts) and parts[n] in self._gives(parts[:n])

    def _gives(self, module: Parts) -> set[str]:
        """What ``_given`` gives: it reads files, which is done once for a module."""
        if module not in self.given:
            self.given[module] = self._given(module)
        return self.given[module]

    def _read(self, path: Path) -> None:
        try:
            raw = path.read_bytes()
            if not self.words.search(raw):
                return
            encoding = tokenize.detect_encoding(io.BytesIO(raw).readline)[0]
            text = raw.decode(encoding).encode()  # nodes count the bytes of UTF-8
            nodes = list(ast.walk(parse(text.decode())))
        except UNREADABLE as e:
            if self.removed:
                how = "read" if isinstance(e, OSError) else "parsed"
                self._tell(path, None, f"it may import what is deleted, and cannot be {how}: {e}")
            return
        starts = [0, *itertools.accumulate(map(len, text.splitlines(keepends=True)))]
        newline = b"\r\n" if b"\r\n" in text else b"\n"
        bound: dict[str, Any] = {}  # what imports bind: what we have, or the parts of its name
        free = {node.id for node in nodes if isinstance(node, ast.Name)}
        free -= {
            name for node in nodes for name in bound_names(node)
        }  # a star import may bind these
        log: list[str] = []
        pieces, last = [], len(text)  # of the new text, from its end to its beginning
        imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
        node: Any
        for node in sorted(imports, key=lambda node: (-node.lineno, -node.col_offset)):
            if lines := self._replace(path, node, bound, free):
                log = [f"{self.name(path)}:{node.lineno}: {line}" for line in lines] + log
                first, end = starts[node.lineno - 1], starts[node.end_lineno - 1]
                start, end = first + node.col_offset, end + node.end_col_offset
                before = text[first:start]
                joined = text[:first].rstrip(b"\r\n").endswith(b"\\")  # to the line above
                between = b"; " if before.strip() or joined else newline + before
                pieces += [text[end:last], between.join(map(str.encode, lines))]
                last = start
        self._check(path, nodes, bound)
        self._check_names(path, nodes, free)
        if log:
            self.log += log
            text = b"".join([text[:last], *reversed(pieces)])
            try:
                parse(text.decode())
            except UNREADABLE as e:
                sentence = f"change its imports by hand: the new text cannot be parsed: {e}"
                self._tell(path, None, sentence)
            self.edited[path] = text.decode().encode(encoding)
            if path.is_symlink():
                self._tell(path, None, "it is a link: put a file in its place")

    def _replace(
        self, path: Path, node: Any, bound: dict[str, Any], free: Container[str]
    ) -> list[str]:
        """The lines that take the place of an import; none: it stays."""
        level = getattr(node, "level", 0)
        beside = self.root if level else path.parent
        base = base_of(path.parent.relative_to(self.root).parts, node)
        outer: Any = self._find(base, beside)
        compat = get(outer.ours) if outer and outer.ours else None
        ours: dict[str, list[ast.alias]] = {}
        theirs = []
        aliases = node.names
        if compat and outer.gone and aliases[0].name == "*":
            given, kept = self._gives(base), set(compat.__all__)
            aliases = [ast.alias(name) for name in sorted(given & kept)] or aliases
            if lost := [name for name in sorted(given - kept) if name in free]:
                self._lacks(path, node, f"no {', '.join(lost)}, which * gives", base)
        for alias in aliases:
            name, local = alias.name, alias.asname or alias.name
            parts = (*base, *name.split("."))
            is_name = isinstance(node, ast.ImportFrom) and parts not in self.known
            inner = None if is_name and name not in self.modules else self._find(parts, beside)
            if compat and (hasattr(compat, name) or (name == "*" and outer.lacking)):
                used = outer
                module, bound[local] = f"{COMPAT}.{outer.ours}", getattr(compat, name, compat)
            elif inner and inner.ours and inner.replaced and "." not in local:
                used = inner
                module, name, bound[local] = COMPAT, inner.ours, get(inner.ours)
            else:
                theirs.append(alias)
                bound[local.split(".")[0]] = parts[:1] if "." in local else parts
                if "." in local and inner and inner.gone:
                    self._tell(path, node, f"import {name} needs a name of its own: as NAME")
                elif (outer and outer.gone) or (inner and inner.gone):
                    self._lacks(path, node, f"no {name}", parts)
                elif name == "*" and outer and outer.replaced:  # it is installed
                    by_name = f"import by name what {'.'.join(base)} gives"
                    self._tell(path, node, by_name, by_hand=True)
                elif not level and self._is_gone(path, f"{parts[0]}.py"):  # op/ is on the path
                    full = f"{self._package_of(parts[0])}.{parts[0]}"
                    self._tell(path, node, f"{full} is deleted: import it by this name")
                if parts == ("pkg_resources", "parse_version"):
                    place = "for parse_version" if len(node.names) > 1 else "instead"
                    self._tell(path, node, PKG_RESOURCES.format(place), by_hand=True)
                continue
            if used.lacking:
                self.lacking.setdefault(path, set()).add(used.lacking)
            ours.setdefault(module, []).append(ast.alias(name, None if local == name else local))
        if not ours:
            return []
        node.names = theirs
        new: list[Any] = [ast.ImportFrom(module, names, 0) for module, names in ours.items()]
        return [ast.unparse(line) for line in [node] * bool(theirs) + new]

    def _check(self, path: Path, nodes: list[Any], bound: dict[str, Any]) -> None:
        """What strings name and attributes read must be there afterwards."""
        variables = [node for node in nodes if isinstance(node, (ast.Name, ast.arg))]
        stored = {name for node in variables for name in bound_names(node)}
        home = path.parent.relative_to(self.root).parts
        is_setup = path.name == "setup.py"
        named = list(mentions.in_python(nodes, home, is_setup))
        imported = {(mention.line, mention.text) for mention in named}
        stubs = set(mentions.stubs(nodes))
        quoted, inside = mentions.quoted_types(nodes)
        for node in (*nodes, *inside):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if node in stubs or node in quoted:  # it will be there; it is read as code
                    continue
                is_import = (node.lineno, node.value) in imported
                if self._is_gone(path, node.value, is_import):
                    self._tell_name(path, node.lineno, node.value, is_setup)
                continue
            first, *rest = read(node)
            found = None if first in stored or not rest else bound.get(first)
            if isinstance(found, tuple):
                if self._gone((*found, *rest), path.parent) or self._file(found[:1], path.parent):
                    self.reads.append(Read(path, node.lineno, found, tuple(rest), first))
            elif found and not hasattr(found, rest[0]):
                self._lacks(path, node, f"nothing for {first}.{rest[0]}", rest)
        for line, name, parts in named:
            # As an import has it where op/ is on the path
            is_file = len(parts) == 1 and self._is_gone(path, f"{parts[0]}.py")
            if is_file or self._gone(parts, path.parent):
                self._tell_name(path, line, name, is_setup)
        for line, program in mentions.programs(nodes):
            for name in self._imports_gone(path, program):
                self._tell(path, line, f"{name} is deleted, which a program in a string imports")
        for line, example in mentions.doctests(nodes):
            for name in self._imports_gone(path, example):
                sentence = f"change a doctest: {name} is deleted, which it imports"
                self._tell(path, line, sentence, by_hand=True)

    def _tell_name(self, path: Path, line: int, name: str, by_hand: bool) -> None:
        if by_hand:  # it is built or installed with what is deleted
            self._tell(path, line, f"remove {name!r}, which is deleted", by_hand=True)
        else:
            self._tell(path, line, f"{name!r} is deleted")

    def _imports_gone(self, path: Path, program: str) -> Iterator[str]:
        """The deleted modules that a program in a string imports."""
        for parts in mentions.imported(program):
            if n := self._gone(parts, path.parent):
                yield ".".join(parts[:n])

    def _check_names(self, path: Path, nodes: list[Any], free: Container[str]) -> None:
        """Names that nothing in the file binds: an import of a module binds it in its package."""
        home = path.parent.relative_to(self.root).parts
        is_package = path.name == "__init__.py"
        packages = [
            base_of(home, node)
            for node in nodes
            if isinstance(node, ast.ImportFrom) and [a.name for a in node.names] == ["*"]
        ]
        packages += [home] * is_package
        for node in nodes:
            if isinstance(node, ast.Name) and node.id in free:
                for package in packages:
                    self._ask_for(path, node.lineno, package, node.id)
            elif is_package and isinstance(node, (ast.Assign, ast.AugAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if "__all__" in [getattr(target, "id", "") for target in targets]:
                    for name in ast.walk(node.value):
                        if isinstance(name, ast.Constant) and isinstance(name.value, str):
                            self._ask_for(path, name.lineno, home, name.value)

    def _ask_for(self, path: Path, line: int, package: Parts, name: str) -> None:
        """Look at a name that stands alone, if it may be that of a deleted module in a package."""
        beside = self.root if package == path.parent.relative_to(self.root).parts else path.parent
        if self._gone((*package, name), beside) == len(package) + 1:
            self.reads.append(Read(path, line, package, (name,), ""))

    def _check_read(self, read: Read) -> None:
        """What code reads behind a module must be there when all is changed."""
        parts, beside, first = read.found + read.rest, read.path.parent, len(read.found)
        gone = self._gone(parts, beside) if read.first else len(parts)
        if 0 < gone <= first:  # its import has been told
            return
        for n in range(first - 1 if read.first else first, len(parts)):
            # parts[n] is read from what the parts before it name
            known = self._find(parts[: n + 1], beside) if n + 1 == gone else None
            file = self._file(parts[:n], beside)
            if not read.first:
                file = read.path
            elif known is not None and known.path is not None:
                file = known.path.parent / "__init__.py"
            value = self._held(file, parts[n]) if file else None
            said = ".".join(filter(None, [read.first, *parts[first : n + 2]]))
            if value not in (None, True) and n + 1 < len(parts):  # a module of ours
                if not hasattr(value, parts[n + 1]):
                    self._lacks(read.path, read.line, f"nothing for {said}", parts[n + 1 :])
                return
            if n + 1 == gone:
                if value is None:
                    said = ".".join(filter(None, [read.first, *parts[first : n + 1]]))
                    self._tell(read.path, read.line, f"{said} is deleted")
                return

    def _file(self, module: Parts, beside: Path) -> Path | None:
        """The file of a module that stays."""
        if (module, beside) not in self.files:
            places = [folder.joinpath(*module) for folder in (beside, self.root) if module]
            files = [f for p in places for f in (p / "__init__.py", p.with_name(f"{p.name}.py"))]
            there = (file for file in files if os.path.isfile(file) and not self._is_removed(file))
            self.files[module, beside] = next(there, None)
        return self.files[module, beside]

    def _held(self, file: Path, name: str) -> Any:
        """A module of ours, or True for anything else, that a file binds a name to; or None."""
        files, seen = [file], set()
        while files:  # each file is looked at once, however many star imports lead to it
            if (file := files.pop()) in seen:
                continue
            seen.add(file)
            if file not in self.held:
                self.held[file] = self._read_names(file)
            names = self.held[file]
            if name in names or "__getattr__" in names:
                return names.get(name, True)
            files += reversed(names.get("*", ()))
        return None

    def _read_names(self, file: Path) -> dict[str, Any]:
        """What a file binds at its top when all is changed; "*" has the files it takes all of."""
        try:
            text = self.edited.get(file) or file.read_bytes()
            nodes = list(walk_top(parse(text)))
        except FileNotFoundError:  # of a package without the file
            return {}
        except UNREADABLE:
            return {"__getattr__": True}  # it may bind anything
        names: dict[str, Any] = {"*": []}
        home = file.parent.relative_to(self.root).parts
        for node in nodes:
            names |= dict.fromkeys(bound_names(node), True)
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                base = base_of(home, node)
                if node.names[0].name == "*":
                    beside = self.root if node.level else file.parent
                    names["*"] += [star for star in [self._file(base, beside)] if star]
                elif node.module == COMPAT:
                    ours = [alias for alias in node.names if alias.name in self.ours]
                    names |= {alias.asname or alias.name: get(alias.name) for alias in ours}
        return names

    def _check_other(self, path: Path) -> None:
        """What a script or a table of settings names must be there afterwards."""
        try:
            raw = path.read_bytes() if _is_file(path) else b""
        except OSError as e:
            sentence = f"it may name what is deleted, and cannot be read: {e}"
            self._tell(path, None, sentence, by_hand=True)
            return
        if not self.words.search(raw):
            return
        text, is_settings = raw.decode(errors="replace"), path.name in SETTINGS
        look = mentions.in_settings if is_settings else mentions.in_commands
        for line, name, parts in look(text):
            for folder in (path.parent, self.root):
                place = Path(os.path.normpath(folder / name))
                is_file = not parts and self._is_removed(place)
                if is_file or self._gone(parts, folder):
                    self._tell_name(path, line, name, is_settings)

    def _package_of(self, module: str) -> str:
        """The name of the copied package that has a module."""
        return next((c.package for c in self.copies if module in c.modules), self.copies[0].package)

    def _lacks(self, path: Path, place: Any, what: str, parts: Sequence[str]) -> None:
        is_loader = not self.loaders.isdisjoint(parts[-2:])
        remedy = "; delete the preload: nothing is built" if is_loader else ""
        self._tell(path, place, f"{COMPAT}.{self.code} has {what}{remedy}")

    def _tell(self, path: Path, place: Any, sentence: str, by_hand: bool = False) -> None:
        """``place``: a line, a node that tells it, or None."""
        whom = self.by_hand if by_hand else self.problems
        line = getattr(place, "lineno", place)
        told = f"{self.name(path)}{f':{line}' if line else ''}: {sentence}"
        if told not in whom:
            whom.append(told)


def _files(root: Path) -> tuple[list[Path], list[Path], list[OSError]]:
    """Python files and linked folders; other files that may name a module; why others are unknown.

    Hidden folders and environments are left out.
    """
    code, others, unread = [], [], list[OSError]()
    for name, folders, files in os.walk(root, onerror=unread.append):
        folder = Path(name)
        code += [folder / name for name in folders if os.path.islink(folder / name)]
        kept = [n for n in folders if n[0] != "." and n not in ("__pycache__", "site-packages")]
        folders[:] = sorted(n for n in kept if not os.path.exists(folder / n / "pyvenv.cfg"))
        for path in (folder / name for name in sorted(files)):
            interpreter = "" if path.suffix else _interpreter(path)
            if path.suffix in CODE or "python" in interpreter:
                code.append(path)
            elif {path.suffix, path.name} & {*SCRIPTS, *SETTINGS} or interpreter:
                others.append(path)
    return code, others, unread


def _is_file(path: Path) -> bool:
    """Whether there is a file: no folder, no pipe, and no link to nothing.

    It is true also where the folder does not let anybody look: reading the file then says why.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def _interpreter(path: Path) -> str:
    """What the first line of a script names."""
    try:
        if not _is_file(path):  # opening a pipe would wait for ever
            return ""
        with path.open("rb") as file:
            line = file.readline(200)
    except OSError:
        return ""
    return line.decode(errors="replace") if line.startswith(b"#!") else ""


def _home() -> Path | None:
    """The user's folder; None where neither HOME nor the system's list of users names it."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def _real(path: Path) -> Path:
    """Where a link leads; Path.resolve raises an error for a loop of links before Python 3.13."""
    return Path(os.path.realpath(path))


def _is_module(path: Path) -> bool:
    return os.path.isdir(path) or os.path.exists(path.with_suffix(".py"))
