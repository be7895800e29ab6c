"""Checks that modules and functions stay short enough to be read at once; `make check` runs it.

A module of `interfaces` or `worker` has at most 300 lines and a function at most 40, a test module 500 and a test 70.
A longer one is named in `EXCEPTIONS` with its reason, and an exception nobody needs is an error too.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = (300, 40)
TESTS = (500, 70)
LIMITS: Mapping[str, tuple[int, int]] = {"interfaces": PRODUCT, "worker": PRODUCT, "examples": PRODUCT, "tests": TESTS}

# "path" or "path:function" -> why it is longer
EXCEPTIONS: Mapping[str, str] = {}


def too_long(path: Path, module_limit: int, function_limit: int) -> Iterator[tuple[str, str]]:
    """Name and complaint of everything in one module that is over its limit."""
    name = path.relative_to(ROOT).as_posix()
    text = path.read_text()
    lines = len(text.splitlines())
    if lines > module_limit:
        yield name, f"{lines} lines, at most {module_limit}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            if length > function_limit:
                yield f"{name}:{node.name}", f"{length} lines, at most {function_limit} (line {node.lineno})"


def main() -> int:
    """Print what is too long; 1 where there is anything."""
    found = {
        name: complaint
        for folder, limits in LIMITS.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, complaint in too_long(path, *limits)
    }
    complaints = [f"{name}: {complaint}" for name, complaint in found.items() if name not in EXCEPTIONS]
    complaints += [f"{name}: an exception that is not needed" for name in EXCEPTIONS if name not in found]
    sys.stdout.writelines(f"{complaint}\n" for complaint in complaints)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
