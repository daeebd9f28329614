# SPDX-License-Identifier: BSD-3-Clause
"""Replace a vendored copy of the op: ``python -m resample_layers.compat.migrate rosinality``.

The command reads every Python file under a folder, by default the current one. It points the
imports of the copy, absolute and relative ones, to :mod:`resample_layers.compat`, and deletes the
copy. It changes nothing where code would be left that needs what is deleted, or where git does not
keep the old state of a file. ``docs/migrating.md`` says what to run where.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import io
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tokenize
import warnings
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

COMPAT = "resample_layers.compat"
PKG_RESOURCES = (
    "setuptools 82 dropped pkg_resources; write instead: "
    "from torch.torch_version import TorchVersion as parse_version"
)
UNREADABLE = OSError, SyntaxError, ValueError, LookupError, RecursionError, MemoryError
PREPARED, WORK, DONE = (f".resample_layers_migrate{end}" for end in (".new", "", ".old"))
Parts = tuple[str, ...]  # of a dotted name, or of a path from the root


class Copied(NamedTuple):
    """What a code calls its copy of the op."""

    package: str
    modules: dict[str, str]  # in the package: which module of compat stands for it
    exports: bool = False  # whether the package offers the functions, or only the modules
    deleted: bool = True
    installed: bool = False  # whether a package of this name can be that of an index
    least: int = 2  # so many of the modules make a package of this name a copy
    generic: bool = False  # whether any code may have the names of the modules
    beside: str = ""  # a module next to it, which goes too where compat has all that it defines
    loader: str = ""  # a module of it that only builds the kernel


ROSINALITY = {"fused_act": "rosinality", "upfirdn2d": "rosinality"}
NVIDIA = ("bias_act", "conv2d_gradfix", "conv2d_resample", "filtered_lrelu", "fma", "upfirdn2d")
MMCV = ("bias_act", "filtered_lrelu", "fused_bias_leakyrelu", "upfirdn2d")
ALIAS_FREE = ("act", "filter", "resample")
FUSED = ("torch", *(f"torch.{name}" for name in ALIAS_FREE), "cuda", "cuda.activation1d")
BIGVGAN: dict[str, Any] = {
    "exports": True,
    "generic": True,
    "beside": "activations",
}
CODES: dict[str, tuple[Copied, ...]] = {
    "rosinality": (Copied("op", {**ROSINALITY, "conv2d_gradfix": "conv2d_gradfix"}, exports=True),),
    "basicsr": (Copied("basicsr.ops", dict.fromkeys(ROSINALITY, "basicsr"), installed=True),),
    "nvidia": (Copied("torch_utils.ops", dict.fromkeys(NVIDIA, "nvidia"), installed=True),),
    "mmcv": (
        Copied(
            "mmcv.ops", dict.fromkeys(MMCV, "mmcv"), exports=True, deleted=False, installed=True
        ),
    ),
    "bigvgan": (
        Copied(
            "alias_free_activation",
            dict.fromkeys(FUSED, "bigvgan"),
            least=1,
            loader="load",
            **BIGVGAN,
        ),
        Copied("alias_free_torch", dict.fromkeys(ALIAS_FREE, "bigvgan"), installed=True, **BIGVGAN),
    ),
}
SOURCES = re.compile(r"(upfirdn2d|bias_act|filtered_lrelu|fused_bias_act).*\.(cpp|cu|h)")


class Known(NamedTuple):
    """What is known of the dotted name of a copied package, or of a module in it."""

    ours: str | None  # the module of compat that has the same functions
    gone: bool  # whether it is deleted
    replaced: bool  # whether an import of it becomes an import of ours
    lacking: str = ""  # the name of a copied package that is nowhere under the folder


class HalfDoneError(OSError):
    """Some files are changed and others are not."""


class Migration:
    """What is to be changed and deleted under ``root``, and what stands against it."""

    def __init__(self, code: str, root: Path) -> None:
        self.code, self.root, self.copies = code, root, CODES[code]
        beside = {copied.beside for copied in self.copies if copied.beside}
        modules = {name for copied in self.copies for name in copied.modules}
        self.modules = {name.rpartition(".")[2] for name in modules | beside}
        self.exports = any(copied.exports for copied in self.copies)
        self.generic = any(copied.generic for copied in self.copies)
        self.loaders = {copied.loader for copied in self.copies if copied.loader}
        self.known: dict[Parts, Known] = {}
        self.removed: list[Path] = []  # files and folders
        self.beside: list[Path] = []  # those of them that are ``Copied.beside``
        self.edited: dict[Path, bytes] = {}
        self.lacking: dict[Path, set[str]] = {}  # packages that files import, and that are nowhere
        self.log: list[str] = []
        self.by_hand: list[str] = []  # what the user must do
        self.kept: list[str] = []  # what git can give back
        self.problems: list[str] = []
        if root in (Path(root.anchor), _home()):
            self.problems.append(f"folder must be that of one code, got {root}")
            return
        work = root / WORK
        if work.exists():
            self.problems.append(
                f"{work}: an earlier run was killed half-way, and keeps there what it had replaced "
                f"and deleted; {_how_to_put_back(root)}"
            )
            return
        for copied in self.copies:
            if copied.installed:  # another "op" may be anything
                self._learn(copied, tuple(copied.package.split(".")), False, False)
        files = list(_files(root))
        folders = {path.parent for path in files}
        for copied in self.copies:
            if copied.deleted:
                self._find_copies(copied, folders)
        found = self.removed or self.problems
        lacking = [] if found else [copied for copied in self.copies if not copied.installed]
        for copied in lacking:  # to find what imports a copy that is not there
            for folder in folders:
                package = *folder.relative_to(root).parts, copied.package
                self._learn(copied, package, False, True, copied.package)
        inside = [path for gone in self.removed for path in (gone, *gone.rglob("*"))]
        self.deleted = [p for p in inside if not _is_folder(p) and p.parent.name != "__pycache__"]
        named = [path.relative_to(root).parts for path in self.deleted]
        self.paths = {"/".join(parts[i:]) for parts in named for i in range(len(parts))}
        self.paths.discard("__init__.py")  # any package has one
        words = [copied.package.rpartition(".")[2] for copied in self.copies] + ["pkg_resources"]
        words += beside
        words += [n for copied in self.copies if not copied.generic for n in copied.modules]
        words += [re.escape(name) for name in self.paths if "/" not in name]
        self.words = re.compile(os.fsencode(rf"\b({'|'.join(words)})\b"))
        for path in (path for path in files if not self._is_removed(path)):
            if path.is_symlink() and self._is_removed(path.resolve()):
                target = self.name(path.resolve())
                self._tell(path, None, f"it is a link to {target}, which is deleted")
            elif path.is_file():  # no folder, and no pipe
                self._read(path)
        for path in self.beside if self.edited else []:
            ours = f"{COMPAT}.{code}"
            sentence = f"compare its formulas with those of {ours}: only names were compared"
            self._tell(path, None, sentence, by_hand=True)
        for name in (copied.package for copied in lacking):
            users = [path for path, names in self.lacking.items() if name in names]
            if not users:
                continue
            self.problems = [f"no copy of {name} was found under {root}"]
            self.problems += [f"{self.name(path)}: it imports {name}" for path in users]
            links = [p for p in files if p.name == name and p.is_symlink()]
            self.problems += [f"{self.name(p)}: it is a link to {p.resolve()}" for p in links]

    def check_git(self) -> Iterator[str]:
        """Why git could not give back what is to be changed and deleted; ``kept`` is the rest."""
        commands = ["ls-files", "-v", "-z"], ["diff", "--name-only", "--relative", "-z", "HEAD"]
        try:
            tracked, changed = (
                subprocess.run(["git", "-C", self.root, *c], capture_output=True, check=True).stdout
                for c in commands
            )
        except (OSError, subprocess.CalledProcessError) as error:
            said = os.fsdecode(getattr(error, "stderr", b"")).strip() or error
            yield f"git keeps no old state of {self.root}: {said}"
            return
        # A capital H: git was not told to overlook changes of the file
        kept = {entry[2:] for entry in os.fsdecode(tracked).split("\0") if entry[:2] == "H "}
        different = set(os.fsdecode(changed).split("\0"))
        no_code = [p for p in self.deleted if p not in self.removed and p.suffix != ".py"]
        ignored = self._ignored(map(self.name, no_code))
        for name in map(self.name, [*self.edited, *self.deleted]):
            if name in ignored:  # such as what the loader of a kernel has built
                continue
            if name not in kept:
                yield f"{name}: git does not track it"
            elif name in different:
                yield f"{name}: it differs from the last commit"
            else:
                self.kept.append(name)

    def _ignored(self, names: Iterable[str]) -> set[str]:
        """Which of these files git does not track because it was told so."""
        command = ["git", "-C", str(self.root), "check-ignore", "--stdin", "-z"]
        given = os.fsencode("".join(f"{name}\0" for name in names))
        said = subprocess.run(command, input=given, capture_output=True).stdout
        return set(os.fsdecode(said).split("\0"))

    def change(self) -> None:
        """Change and delete all, or nothing.

        All new contents, and copies of the old ones, are written before the first file changes.
        What is deleted is moved away until the rest has succeeded.

        Raises:
            HalfDoneError: if that fails, and putting the old files back fails too.
            OSError: if that fails; all is as it was before.
        """
        prepared = self.root / PREPARED
        work, done = self.root / WORK, self.root / DONE
        for rest in (prepared, done):  # of a run that was killed, which needs them no more
            if rest.exists():
                shutil.rmtree(rest)
        try:
            for path, content in self.edited.items():
                old, new = (prepared / kind / self.name(path) for kind in ("old", "new"))
                old.parent.mkdir(parents=True, exist_ok=True)
                new.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, old)
                new.write_bytes(content)
                shutil.copymode(path, new)
            for path in self.removed:
                (prepared / "old" / self.name(path)).parent.mkdir(parents=True, exist_ok=True)
            os.rename(prepared, work)
        except BaseException:
            shutil.rmtree(prepared, ignore_errors=True)
            raise
        try:
            for path in self.edited:
                os.replace(work / "new" / self.name(path), path)
            for path in self.removed:
                os.replace(path, work / "old" / self.name(path))
            os.rename(work, done)
        except BaseException:
            try:
                _put_back(work / "old", self.root)
            except OSError as error:
                raise HalfDoneError(
                    f"{error}: {work} keeps what was replaced and deleted; "
                    f"{_how_to_put_back(self.root)}"
                ) from error
            shutil.rmtree(work)
            raise
        shutil.rmtree(done, ignore_errors=True)

    def name(self, path: Path) -> str:
        """A path as it is printed."""
        return path.relative_to(self.root).as_posix()

    def _learn(
        self, copied: Copied, package: Parts, gone: bool, whole: bool, lacking: str = ""
    ) -> None:
        """``gone``: the modules are deleted. ``whole``: so is the package, which has no others."""
        ours = self.code if copied.exports else None
        self.known[package] = Known(ours, gone and whole, whole, lacking)
        for module, name in copied.modules.items():
            self.known[(*package, *module.split("."))] = Known(name, gone, True, lacking)

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
                self._learn(copied, package, True, whole)
        modules = [file.with_suffix("") for file in self.beside]
        for module in modules:
            for package in self._names(module, modules):
                self.known[package] = Known(self.code, True, True)

    def _replaces(self, path: Path) -> bool:
        """Whether a file only defines classes and functions, one at least, and we have them all."""
        try:
            body = _parse(path.read_bytes()).body
        except UNREADABLE:
            return False
        body = [n for n in body if not isinstance(n, (ast.Import, ast.ImportFrom))]
        texts = [n for n in body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
        names = {
            getattr(n, "name", None) for n in body if n not in texts
        }  # None: it is something else
        return bool(names) and names <= set(_get(self.code).__all__)

    def _given(self, module: Parts, seen: Sequence[Parts] = ()) -> set[str]:
        """The names that a star import of a deleted module gives."""
        names: set[str] = set()
        for file in self.deleted:
            parts = file.relative_to(self.root).with_suffix("").parts
            name = parts[:-1] if parts[-1] == "__init__" else parts
            if file.suffix != ".py" or name[-len(module) :] != module or name in seen:
                continue
            try:
                nodes = list(_walk_top(_parse(file.read_bytes())))
            except UNREADABLE:
                continue
            bound = {local for node in nodes for local in _bound(node)}
            for node in nodes:
                if isinstance(node, ast.ImportFrom):
                    base = _base(parts[:-1], node)
                    if node.names[0].name == "*":
                        bound |= self._given(base, [*seen, name])
                    if base[:-1] == name:  # a package has each module that it has imported
                        bound.add(base[-1])
            names |= bound
        return {name for name in names if not name.startswith("_")}

    def _names(self, path: Path, copies: Container[Path]) -> Iterator[Parts]:
        """The dotted names of a copy: people put any folder above it on the path."""
        home = path.relative_to(self.root).parts
        for i in range(len(home)):
            other = self.root.joinpath(*home[i:])
            if other in copies or not _is_module(other):
                yield home[i:]

    def _find(self, parts: Parts, beside: Path) -> Known | None:
        """What is known of a name; what a module holds is known as the module is.

        Python finds the modules in the folder ``beside`` before others: the root for a full name.
        """
        for n in range(len(parts), 0, -1):
            name = parts[:n]
            if name in self.known and _is_module(beside.joinpath(*name)):
                name = beside.relative_to(self.root).parts + name
            if known := self.known.get(name):
                return known if n == len(parts) or parts[n - 1] in self.modules else None
        return None

    def _is_removed(self, path: Path) -> bool:
        return any(path.is_relative_to(gone) for gone in self.removed)

    def _is_gone(self, path: Path, name: str, is_import: bool = True) -> bool:
        """Whether a name that code in ``path`` uses is of something deleted; "op" is too short."""
        dotted, file = name.lstrip(".").split("."), name.replace("\\", "/").lstrip("./")
        if file in self.paths and "/" not in file:  # it may name a file that is left
            names = file, file.removesuffix(".py")
            places = [folder / name for folder in (path.parent, self.root) for name in names]
            return all(self._is_removed(place) or not place.exists() for place in places)
        known = self._find(tuple(dotted), path.parent) if "." in name else None
        relative = name[:1] == "." and f"{dotted[0]}.py" in self.paths
        relative = relative and (is_import or not self.generic)  # ".filter" may be of a checkpoint
        return file in self.paths or relative or (known is not None and known.gone)

    def _read(self, path: Path) -> None:
        try:
            raw = path.read_bytes()
            if not self.words.search(raw):
                return
            encoding = tokenize.detect_encoding(io.BytesIO(raw).readline)[0]
            text = raw.decode(encoding).encode()  # nodes count the bytes of UTF-8
            nodes = list(ast.walk(_parse(text.decode())))
        except UNREADABLE as e:
            if self.removed:
                self._tell(path, None, f"it may import what is deleted, and cannot be parsed: {e}")
            return
        starts = [0, *itertools.accumulate(map(len, text.splitlines(keepends=True)))]
        newline = b"\r\n" if b"\r\n" in text else b"\n"
        bound: dict[str, Any] = {}  # what imports bind: what we have, or the parts of its name
        free = {node.id for node in nodes if isinstance(node, ast.Name)}
        free -= {name for node in nodes for name in _bound(node)}  # a star import may bind these
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
                between = b"; " if before.strip() else newline + before
                pieces += [text[end:last], between.join(map(str.encode, lines))]
                last = start
        self._check(path, nodes, bound)
        if log:
            self.log += log
            text = b"".join([text[:last], *reversed(pieces)])
            self.edited[path] = text.decode().encode(encoding)
            if path.is_symlink():
                self._tell(path, None, "it is a link: put a file in its place")

    def _replace(
        self, path: Path, node: Any, bound: dict[str, Any], free: Container[str]
    ) -> list[str]:
        """The lines that take the place of an import; none: it stays."""
        level = getattr(node, "level", 0)
        beside = self.root if level else path.parent
        base = _base(path.parent.relative_to(self.root).parts, node)
        outer: Any = self._find(base, beside)
        compat = _get(outer.ours) if outer and outer.ours else None
        ours: dict[str, list[ast.alias]] = {}
        theirs = []
        aliases = node.names
        if compat and outer.gone and aliases[0].name == "*":
            given, kept = self._given(base), set(compat.__all__)
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
                module, name, bound[local] = COMPAT, inner.ours, _get(inner.ours)
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
                    self._tell(path, node, PKG_RESOURCES, by_hand=True)
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
        stored = {name for node in variables for name in _bound(node)}
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        calls = [n for n in calls if _chain(n.func)[-1] in ("import_module", "__import__")]
        imported = [a for c in calls for a in (*c.args, *(k.value for k in c.keywords))]
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if not self._is_gone(path, node.value, node in imported):
                    continue
                if path.name == "setup.py":
                    self._tell(path, node, f"remove {node.value!r}, which is deleted", by_hand=True)
                else:
                    self._tell(path, node, f"{node.value!r} is deleted")
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                first, *rest = _chain(node)
                found = None if first in stored else bound.get(first)
                if isinstance(found, tuple):  # a package that exports the functions still has them
                    if self.exports or not self._is_gone(path, ".".join([*found, *rest])):
                        continue
                    self._tell(path, node, f"{'.'.join([first, *rest])} is deleted")
                elif found and not hasattr(found, rest[0]):
                    self._lacks(path, node, f"nothing for {first}.{rest[0]}", rest)

    def _package_of(self, module: str) -> str:
        """The name of the copied package that has a module."""
        return next((c.package for c in self.copies if module in c.modules), self.copies[0].package)

    def _lacks(self, path: Path, node: Any, what: str, parts: Sequence[str]) -> None:
        is_loader = not self.loaders.isdisjoint(parts[-2:])
        remedy = "; delete the preload: nothing is built" if is_loader else ""
        self._tell(path, node, f"{COMPAT}.{self.code} has {what}{remedy}")

    def _tell(self, path: Path, node: Any, sentence: str, by_hand: bool = False) -> None:
        whom = self.by_hand if by_hand else self.problems
        told = f"{self.name(path)}{f':{node.lineno}' if node else ''}: {sentence}"
        if told not in whom:
            whom.append(told)


def _files(root: Path) -> Iterator[Path]:
    """Python files and linked folders, without those in hidden folders and in environments."""
    for name, folders, files in os.walk(root):
        folder = Path(name)
        yield from (folder / name for name in folders if (folder / name).is_symlink())
        kept = [n for n in folders if n[0] != "." and n not in ("__pycache__", "site-packages")]
        folders[:] = sorted(n for n in kept if not (folder / n / "pyvenv.cfg").exists())
        yield from (folder / name for name in sorted(files) if name.endswith(".py"))


def _home() -> Path | None:
    """The user's folder; None where neither HOME nor the system's list of users names it."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def _how_to_put_back(root: Path) -> str:
    """What a user is to do where a change stopped half-way."""
    back = shlex.join(["cp", "-a", f"{root / WORK / 'old'}/.", str(root)])
    return f"put it back with: {back}; then remove {WORK}"


def _put_back(old: Path, place: Path) -> None:
    """Move what lies in ``old`` to where it was."""
    for path in old.iterdir():
        target = place / path.name
        if _is_folder(path) and os.path.lexists(target):
            _put_back(path, target)
        else:
            os.replace(path, target)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _parse(code: bytes | str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a compiler thinks of other people's code
        return ast.parse(code)


def _is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").exists()


def _base(home: Parts, node: Any) -> Parts:
    """What an import in the folder ``home`` imports from; nothing for ``import a``."""
    inside, level = getattr(node, "module", None), getattr(node, "level", 0)
    above = home[: len(home) - level + 1] if level else ()
    return above + (tuple(inside.split(".")) if inside else ())


def _walk_top(module: ast.Module) -> Iterator[ast.AST]:
    """The nodes of a module that are in no function and in no class."""
    nodes: list[ast.AST] = [module]
    for node in nodes:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            nodes.extend(ast.iter_child_nodes(node))


def _bound(node: Any) -> list[str]:
    """The names that a node binds, without the nodes in it."""
    if isinstance(node, ast.alias):
        return [] if node.name == "*" else [node.asname or node.name.split(".")[0]]
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    names = getattr(node, "name", None), getattr(node, "arg", None)  # a definition, an argument
    return [name for name in names if name and not isinstance(node, ast.keyword)]


def _chain(node: Any) -> list[str]:
    """The names in ``a.b.c``; the first is empty where no name begins the expression."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "", *names]


def _get(module: str) -> Any:
    return importlib.import_module(f"{COMPAT}.{module}")


def _print(file: TextIO, *lines: str) -> None:
    """Print what the encoding of a terminal lacks, too."""
    text = "".join(f"{line}\n" for line in lines)
    encoding = file.encoding or "utf-8"
    file.write(text.encode(encoding, "backslashreplace").decode(encoding))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {COMPAT}.migrate",
        description="Import resample_layers.compat instead of a copy of the op; delete the copy.",
    )
    parser.add_argument("code", choices=CODES, help="whose the copy is")
    parser.add_argument("folder", nargs="?", default=".", type=Path, help="default: this one")
    parser.add_argument("--dry-run", action="store_true", help="only print what would change")
    parser.add_argument("--force", action="store_true", help="change what git does not keep, too")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        parser.error(f"folder must be a folder, got {str(given.folder)!r}")
    migration = Migration(given.code, given.folder.resolve())
    by_hand = [f"by hand: {sentence}" for sentence in migration.by_hand]
    problems = migration.problems
    if not problems and not migration.edited:
        names = " or ".join(copied.package for copied in CODES[given.code])
        nothing = f"nothing imports a copy of {names}: nothing was changed"
        _print(sys.stdout, *by_hand, nothing)
        return 0
    if not problems and (lost := list(migration.check_git())) and not given.force:
        problems = [*lost, "commit what git shall keep, or give --force to change it all the same"]
    changes = [*migration.log, *(f"{migration.name(path)}: deleted" for path in migration.removed)]
    if given.dry_run:
        _print(sys.stdout, *changes, *by_hand, "nothing was changed: this is a dry run")
    if problems:
        _print(sys.stderr, "Nothing was changed, because of:", *problems)
    if given.dry_run or problems:
        return int(bool(problems))
    git = ["git", "-C", str(migration.root), "checkout", "HEAD", "--", *migration.kept]
    undo = [f"undo it with: {shlex.join(git)}"] if migration.kept else []
    try:
        migration.change()
    except HalfDoneError as error:
        _print(sys.stderr, "The change stopped half-way, because of:", str(error))
        return 1
    except OSError as error:
        _print(sys.stderr, "Nothing was changed, because of:", str(error))
        return 1
    _print(sys.stdout, *changes, *by_hand, *undo)
    return 0


if __name__ == "__main__":
    sys.exit(main())
