# SPDX-License-Identifier: BSD-3-Clause
"""Replace a vendored copy of the op: ``python -m resample_layers.compat.migrate rosinality``.

Reads every Python file under a folder, by default the current one; points what is imported from
the copy, absolutely or relatively, to :mod:`resample_layers.compat`; and deletes the copy. What it
changes and deletes is first kept in ``before-migration-NAME.zip``, from which it is put back if
anything fails. Where something would be left that needs what is deleted, it says where and changes
nothing. ``docs/migrating.md`` says what to run where.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import io
import os
import shutil
import sys
import tokenize
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

COMPAT = "resample_layers.compat"
Parts = tuple[str, ...]  # of a dotted name, or of a path from the root


class Copied(NamedTuple):
    """What a code calls its copy of the op."""

    package: str
    modules: dict[str, str]  # in the package: what of compat stands for it
    sources: Parts = ()  # how the names of compiled files beside the modules begin
    exports: bool = False  # whether the package offers the functions, or only the modules
    installed: bool = True  # whether the package may also be one that lies elsewhere
    deleted: bool = True


CODES = {
    "rosinality": Copied(
        "op",
        {
            "fused_act": "rosinality",
            "upfirdn2d": "rosinality",
            "conv2d_gradfix": "conv2d_gradfix",
        },
        sources=("fused_bias_act", "upfirdn2d"),
        exports=True,
        installed=False,
    ),
    "basicsr": Copied("basicsr.ops", dict.fromkeys(("fused_act", "upfirdn2d"), "basicsr")),
    "nvidia": Copied(
        "torch_utils.ops",
        dict.fromkeys(
            ("bias_act", "conv2d_gradfix", "conv2d_resample", "fma", "upfirdn2d"), "nvidia"
        ),
        sources=("bias_act", "upfirdn2d"),
    ),
    "mmcv": Copied(
        "mmcv.ops",
        dict.fromkeys(("bias_act", "fused_bias_leakyrelu", "upfirdn2d"), "mmcv"),
        exports=True,
        deleted=False,
    ),
}


class Edit(NamedTuple):
    """``new`` in place of the bytes from ``start`` to ``end``."""

    start: int
    end: int
    new: str


class Source:
    """A Python file as UTF-8, whatever its encoding and line ends are, and where its nodes lie."""

    def __init__(self, path: Path) -> None:
        raw = path.read_bytes()
        self.path = path
        self.encoding = tokenize.detect_encoding(io.BytesIO(raw).readline)[0]
        self.text = raw.decode(self.encoding).encode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a compiler thinks of other people's code
            self.tree = ast.parse(self.text.decode())
        self.starts = [0]
        for line in self.text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.newline = "\r\n" if b"\r\n" in self.text else "\n"

    def span(self, node: Any) -> tuple[int, int]:
        """Where a node begins and ends."""
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def before(self, node: Any) -> str:
        """What stands before a node in its line."""
        start = self.starts[node.lineno - 1]
        return self.text[start : start + node.col_offset].decode()

    def edited(self, edits: Sequence[Edit]) -> bytes:
        """The whole file after some edits, in its encoding."""
        text = self.text
        for edit in sorted(edits, reverse=True):
            text = text[: edit.start] + edit.new.encode() + text[edit.end :]
        return text.decode().encode(self.encoding)


class Migration:
    """What is to be changed and deleted under ``root``, and what stands against it."""

    def __init__(self, code: str, root: Path) -> None:
        self.code, self.root, self.copied = code, root, CODES[code]
        self.folders: list[Path] = []  # the copies of the package
        self.removed: list[Path] = []  # files and folders
        self.paths: set[str] = set()  # of removed files, from any folder above the package
        self.edited: dict[Path, bytes] = {}
        self.log: list[str] = []
        self.problems: list[str] = []
        self.backup = root / f"before-migration-{code}.zip"
        if root in (Path(root.anchor), Path.home()):
            self.problems.append(f"folder must be that of one code, got {root}")
            return
        files = list(_python_files(root))
        if self.copied.deleted:
            self._find_copies({path.parent for path in files})
            for gone in self.removed:
                for path in gone.rglob("*") if gone.is_dir() else [gone]:
                    parts = path.relative_to(root).parts
                    self.paths |= {"/".join(parts[i:]) for i in range(len(parts) - 1)}
        for path in files:
            if not any(path.is_relative_to(gone) for gone in self.removed):
                self._read(path)

    def run(self) -> None:
        """Keep, write and delete; what fails is undone.

        Raises:
            FileExistsError: if there is a backup of an earlier migration. OSError: of the files.
        """
        old = [*self.edited]
        for gone in self.removed:
            old += [p for p in gone.rglob("*") if p.is_file()] if gone.is_dir() else [gone]
        with zipfile.ZipFile(self.backup, "x", zipfile.ZIP_DEFLATED) as kept:
            for path in old:
                kept.write(path, path.relative_to(self.root).as_posix())
        try:
            for path, content in self.edited.items():
                path.write_bytes(content)
            for path in self.removed:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except BaseException:
            with zipfile.ZipFile(self.backup) as kept:
                for path in old:
                    content = kept.read(path.relative_to(self.root).as_posix())
                    if not path.exists() or path.read_bytes() != content:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(content)
            raise

    def _find_copies(self, folders: set[Path]) -> None:
        name = self.copied.package.rpartition(".")[2]
        parents = folders | {folder.parent for folder in folders}
        for folder in sorted(parents):
            if folder.name != name:
                continue
            modules = [
                path
                for module in self.copied.modules
                for path in (folder / f"{module}.py", folder / module)
                if path.is_file() or (path / "__init__.py").is_file()
            ]
            if len(modules) < 2:  # another package of this name
                continue
            if folder == self.root or not folder.is_relative_to(self.root):
                self.problems.append(
                    f"folder must be that of the code above {name}, got {self.root}"
                )
                continue
            self.folders.append(folder)
            sources = [
                path
                for path in sorted(folder.iterdir())
                if path.suffix in (".cpp", ".cu", ".h")
                and path.name.startswith(self.copied.sources)
            ]
            left = {path.name for path in folder.iterdir()} - {p.name for p in modules + sources}
            if self.copied.exports and left <= {"__init__.py", "__pycache__"}:
                self.removed.append(folder)
            else:
                self.removed += modules + sources

    # Names

    def _within(self, parts: Parts, relative: bool) -> Parts | None:
        """The parts that follow the package's in a module's name; None: it is not of the package.

        Absolute names may start at any folder above a copy: people put folders on the path.
        """
        homes = [folder.relative_to(self.root).parts for folder in self.folders]
        if relative:
            prefixes = homes
        else:
            prefixes = [
                home[i:]
                for home in homes
                for i in range(len(home))
                if i == 0 or not self._is_another(home[i:])
            ]
            if self.copied.installed:
                prefixes.append(tuple(self.copied.package.split(".")))
        for prefix in sorted(prefixes, key=len, reverse=True):
            if parts[: len(prefix)] == prefix:
                return parts[len(prefix) :]
        return None

    def _is_another(self, parts: Parts) -> bool:
        """Whether a package of this name lies at the root and is no copy."""
        folder = self.root.joinpath(*parts)
        return folder not in self.folders and (
            folder.is_dir() or folder.with_suffix(".py").exists()
        )

    def _is_removed(self, inner: Parts) -> bool:
        """Whether a module of the package, or the package (no parts), goes."""
        if not inner:
            return any(folder in self.removed for folder in self.folders)
        return bool(self.folders) and inner[0] in self.copied.modules

    def _replacement(self, inner: Parts, name: str) -> tuple[str, str] | None:
        """``(module, name)`` of compat for ``from package.inner import name``, if there is one."""
        modules = self.copied.modules
        if not inner and name in modules and not self.copied.exports:
            return COMPAT, modules[name]
        if not inner and not self.copied.exports:
            return None
        if inner and inner[0] not in modules:
            return None
        if not inner and name == "*" and not self._is_removed(()):
            return None  # it offers more than ours
        module = modules[inner[0]] if inner else self.code
        if name == "*" or hasattr(importlib.import_module(f"{COMPAT}.{module}"), name):
            return f"{COMPAT}.{module}", name
        if name in modules:  # of a module its submodule, or of a package that exports functions
            return COMPAT, modules[name]
        return None

    # Files

    def _read(self, path: Path) -> None:
        try:
            source = Source(path)
        except OSError as error:
            self._object(path, None, f"it cannot be read: {error}")
            return
        except (SyntaxError, UnicodeDecodeError, LookupError) as error:
            if self.folders and self.copied.package.encode() in path.read_bytes():
                self._object(
                    path, None, f"it may import what is deleted, and is no Python: {error}"
                )
            return
        edits: list[Edit] = []
        bound: dict[str, Any] = {}
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom):
                edits += self._import_from(source, node, bound)
            elif isinstance(node, ast.Import):
                edits += self._import(source, node, bound)
            elif isinstance(node, (ast.keyword, ast.Assign)) and "ext_modules" in _targets(node):
                edits += self._extensions(source, node.value)
        dropped = [(edit.start, edit.end) for edit in edits]
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Constant) and self._names_removed(node.value):
                start, end = source.span(node)
                if not any(a <= start and end <= b for a, b in dropped):
                    self._object(path, node, f"{node.value!r} is deleted")
        self._check_attributes(source, bound)
        if edits:
            self.edited[path] = source.edited(edits)
            try:
                ast.parse(self.edited[path])
            except SyntaxError as error:
                self._object(path, None, f"it would be no Python any more: {error}")

    def _import_from(
        self, source: Source, node: ast.ImportFrom, bound: dict[str, Any]
    ) -> Iterator[Edit]:
        parts = tuple(node.module.split(".")) if node.module else ()
        if node.level:
            home = source.path.parent.relative_to(self.root).parts
            parts = home[: len(home) - node.level + 1] + parts
        new: dict[str, list[str]] = {}
        old = []
        for alias in node.names:
            inner = self._within(parts, node.level > 0)
            found = None
            if inner is not None:
                found = self._replacement(inner, alias.name)
                gone = self._is_removed(inner) or (not inner and self._is_removed((alias.name,)))
            else:  # ``from models import op``
                inner = self._within((*parts, alias.name), node.level > 0)
                gone = inner == () and self._is_removed(())
                if gone:
                    found = (COMPAT, self.code)
            if found is None:
                old.append(_named(alias.name, alias.asname))
                if gone:
                    self._object(source.path, node, f"{COMPAT}.{self.code} has no {alias.name}")
                continue
            module, name = found
            local = alias.asname or alias.name
            new.setdefault(module, []).append(_named(name, local))
            if name != "*":
                bound[local] = _looked_up(module, name)
        if new:
            if old:
                new = {f"{'.' * node.level}{node.module or ''}": old, **new}
            lines = [f"from {module} import {', '.join(names)}" for module, names in new.items()]
            yield self._rewrite(source, node, lines)

    def _import(self, source: Source, node: ast.Import, bound: dict[str, Any]) -> Iterator[Edit]:
        new, old = [], []
        for alias in node.names:
            inner = self._within(tuple(alias.name.split(".")), False)
            local = alias.asname or alias.name
            module = None
            if inner is not None and "." not in local:
                if inner and inner[0] in self.copied.modules:
                    module = self.copied.modules[inner[0]]
                elif not inner and self._is_removed(()):
                    module = self.code
            if module is None:
                old.append(_named(alias.name, alias.asname))
                if inner is not None and self._is_removed(inner):
                    self._object(
                        source.path, node, f"import {alias.name} needs a name of its own: as NAME"
                    )
            else:
                new.append(f"from {COMPAT} import {_named(module, local)}")
                bound[local] = _looked_up(COMPAT, module)
        if new:
            yield self._rewrite(source, node, [f"import {', '.join(old)}"] * bool(old) + new)

    def _rewrite(self, source: Source, node: ast.stmt, lines: list[str]) -> Edit:
        where = source.path.relative_to(self.root).as_posix()
        self.log += [f"{where}:{node.lineno}: {line}" for line in lines]
        before = source.before(node)
        between = "; " if before.strip() else source.newline + before
        return Edit(*source.span(node), between.join(lines))

    def _extensions(self, source: Source, value: ast.expr) -> Iterator[Edit]:
        """Calls in the lists of ``ext_modules`` that name what is deleted, the innermost ones."""
        for node in ast.walk(value):
            if isinstance(node, ast.List):
                yield from self._extensions_of(source, node)

    def _extensions_of(self, source: Source, node: ast.List) -> Iterator[Edit]:
        for i, call in enumerate(node.elts):
            if not isinstance(call, ast.Call):
                continue
            if any(
                isinstance(n, ast.List) and any(isinstance(e, ast.Call) for e in n.elts)
                for n in ast.walk(call)
            ):
                continue  # it has lists of calls itself
            named = [n.value for n in ast.walk(call) if isinstance(n, ast.Constant)]
            if not any(map(self._names_removed, named)):
                continue
            start, end = source.span(call)
            if i + 1 < len(node.elts):
                end = source.span(node.elts[i + 1])[0]
            else:
                end = source.span(node)[1] - 1
            where = source.path.relative_to(self.root).as_posix()
            self.log.append(f"{where}:{call.lineno}: without {source.text[start:end].decode()!r}")
            yield Edit(start, end, "")

    def _names_removed(self, value: Any) -> bool:
        """Whether a string is the dotted name of a module that goes, or the path of a file."""
        if not isinstance(value, str):
            return False
        inner = self._within(tuple(value.split(".")), False)
        if inner == () and "." not in value:  # a word such as "op" says too little
            inner = None
        return value in self.paths or (inner is not None and self._is_removed(inner))

    def _check_attributes(self, source: Source, bound: dict[str, Any]) -> None:
        """What the code reads of the modules that it gets must be there."""
        taken = {
            n.arg if isinstance(n, ast.arg) else n.id
            for n in ast.walk(source.tree)
            if isinstance(n, ast.arg) or (isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        }
        for node in ast.walk(source.tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Load)
                and isinstance(node.value, ast.Name)
                and node.value.id in bound
                and node.value.id not in taken
                and not hasattr(bound[node.value.id], node.attr)
            ):
                name = f"{node.value.id}.{node.attr}"
                self._object(source.path, node, f"{COMPAT}.{self.code} has nothing for {name}")

    def _object(self, path: Path, node: Any, sentence: str) -> None:
        line = "" if node is None else f":{node.lineno}"
        self.problems.append(f"{path.relative_to(self.root).as_posix()}{line}: {sentence}")


def _python_files(root: Path) -> Iterator[Path]:
    """All but those of hidden folders and of environments."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in ("__pycache__", "site-packages")
            and not Path(folder, name, "pyvenv.cfg").exists()
        )
        for path in (Path(folder, name) for name in sorted(files) if name.endswith(".py")):
            if not path.is_symlink():  # what it points to is read where it lies
                yield path


def _targets(node: ast.keyword | ast.Assign) -> list[str | None]:
    """The names that a keyword or an assignment gives a value to."""
    if isinstance(node, ast.keyword):
        return [node.arg]
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def _named(name: str, local: str | None) -> str:
    return name if local in (None, name) else f"{name} as {local}"


def _looked_up(module: str, name: str) -> Any:
    if module == COMPAT:
        return importlib.import_module(f"{COMPAT}.{name}")
    return getattr(importlib.import_module(module), name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {COMPAT}.migrate",
        description="Import resample_layers.compat instead of a copy of the op; delete the copy.",
    )
    parser.add_argument("code", choices=CODES, help="whose the copy is")
    parser.add_argument("folder", nargs="?", default=".", type=Path, help="default: this one")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        parser.error(f"folder must be a folder, got {str(given.folder)!r}")
    migration = Migration(given.code, given.folder.resolve())
    if migration.problems:
        print("Nothing was changed, because of:", *migration.problems, sep="\n", file=sys.stderr)
        return 1
    if not migration.edited:
        print(f"nothing imports {CODES[given.code].package}: nothing was changed")
        return 0
    try:
        migration.run()
    except FileExistsError:
        print(f"{migration.backup} is of an earlier migration: move it", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Everything is as it was, because of:\n{error}", file=sys.stderr)
        return 1
    print(*migration.log, sep="\n")
    for path in migration.removed:
        print(f"deleted {path.relative_to(migration.root).as_posix()}")
    print(f"what it was before is in {migration.backup.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
