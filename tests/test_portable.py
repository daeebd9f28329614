# SPDX-License-Identifier: BSD-3-Clause
"""What `make test-native` runs can be imported on every system, not on this one alone."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
POSIX = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def imports_of(tree):
    """Names that are imported, wherever that stands, but for what an except ImportError follows."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Try) and any(
            isinstance(h.type, ast.Name) and h.type.id == "ImportError" for h in node.handlers
        ):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "tests." * node.level + (node.module or "")
            yield base
            yield from (f"{base.rstrip('.')}.{alias.name}" for alias in node.names)
        yield from imports_of(node)


def reached_from(files):
    """Each file with what it imports, and so on through the files of this repository."""
    found, left = {}, list(files)
    while left:
        path = left.pop()
        if path in found:
            continue
        found[path] = set(imports_of(ast.parse(path.read_text(encoding="utf-8"))))
        for name in found[path]:
            if name.startswith(("tests.", "scripts.")):
                module = ROOT / f"{name.replace('.', '/')}.py"
                left += [module] if module.is_file() else []
    return found


def test_native_tests_import_nothing_that_windows_lacks():
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    listed = re.search(r"^OP_TESTS := \$\(addprefix tests/test_,(.*?)\)$", text, re.MULTILINE)[1]
    files = [ROOT / "tests" / f"test_{name}" for name in listed.split()]
    reached = reached_from([*files, ROOT / "tests" / "conftest.py"])
    assert ROOT / "tests" / "tools.py" in reached
    assert ROOT / "scripts" / "fuzz_arguments.py" in reached
    lacking = {path.name: names & POSIX for path, names in reached.items() if names & POSIX}
    assert not lacking
