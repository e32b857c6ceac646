#!/usr/bin/env python3
"""Checks which way #include lines point, and how large files may be.

Prints file:line: what is wrong, one per line; exit status 1 where there is one.

    include <- core <- cpu | metal | cuda <- backends.cpp      algorithm/ and kernels/ stand alone
"""

import re
import sys
from pathlib import Path

MAX_COLUMNS = 100
MAX_LINES = 400
MAX_KERNEL_LINES = 300
CODE = {".h", ".hpp", ".c", ".cpp", ".cuh", ".metal", ".mm", ".py", ".sh"}
C_FAMILY = CODE - {".py", ".sh"}
BACKENDS = ["src/cpu", "src/metal", "src/cuda"]
CONFORMANCE = ["case", "cases", "tensor", "plain", "conformance"]
# Still to be wrapped.
NOT_WRAPPED = {f"docs/{f}.md" for f in ("cuda", "metal", "numerics", "python")} | {"CHANGELOG.md"}
FOLDERS = ["include", "src", "tools", "python", "bench", "examples", "softmetal", "softcuda"]
FOLDERS += ["tests", "fuzz"]

# What the files of a folder may include. The longest matching folder decides; tests see all.
MAY_INCLUDE = {
    "include": ["include"],
    "src/core": ["include", "src/core", "src/algorithm", "src/variants"],
    "src/algorithm": ["src/algorithm"],
    "src/variants": ["src/variants", "src/algorithm"],
    **{b: ["include", "src/core", "src/algorithm", "src/variants", b] for b in BACKENDS},
    **{f"{b}/kernels": [f"{b}/kernels", "src/algorithm", "src/variants"] for b in BACKENDS},
    "src/backends.cpp": ["include", "src/core", *BACKENDS],
    # `ingot check` runs the table of the tests (docs/adr/0002); `ingot bench` reads counters.
    "tools": [
        "include",
        "tools",
        "softmetal/include/softmetal/softmetal.h",
        *(f"tests/{f}.hpp" for f in CONFORMANCE),
    ],
    "python": ["include", "python"],
    "bench": ["include", "bench"],
    "examples": ["include", "examples"],
    "softmetal": ["softmetal"],
    # Its fibers, and the frame of its tests.
    "softcuda": ["softcuda", "softmetal/exec", "softmetal/tests/check.hpp"],
}
INCLUDE = re.compile(r'\s*#\s*include\s*[<"]([^>"]+)[>"]')


def longest_match(path: str, folders) -> str | None:
    """The longest of folders that is path or holds it."""
    matches = [f for f in folders if path == f or path.startswith(f + "/")]
    return max(matches, key=len, default=None)


def includes(root: Path, path: Path):
    """Yields (line number, file) for every include of path that is a file of this repository."""
    folders = ["include", "src", "tests", "tools/ingot", "."]
    bases = [path.parent, *(root / f for f in folders)]
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        found = [b / match[1] for b in bases if (b / match[1]).is_file()] if match else []
        if found:
            yield number, found[0].resolve()


def check_direction(root: Path, path: Path):
    name = path.relative_to(root).as_posix()
    folder = longest_match(name, MAY_INCLUDE)
    if folder is None:
        return
    for number, target in includes(root, path):
        target_name = target.relative_to(root).as_posix()
        allowed = longest_match(target_name, MAY_INCLUDE[folder])
        # kernels/ inside an allowed folder is text for another compiler, not a header of the host;
        # but for the structures of a kernel's arguments, which both compilers read.
        is_text = "/kernels/" in target_name and not target_name.endswith("params.h")
        hidden = is_text and (allowed is None or "kernels" not in allowed)
        if allowed is None or hidden:
            yield f"{name}:{number}: {folder} may not include {target_name}"


def check_reference(root: Path):
    """The reference may not reach src/algorithm/ through any chain of includes."""
    waiting = [(p, p.name) for p in sorted((root / "src/cpu").glob("reference*"))]
    seen = set()
    while waiting:
        path, chain = waiting.pop()
        for number, target in includes(root, path):
            name = target.relative_to(root).as_posix()
            if name.startswith("src/algorithm/"):
                where = f"{path.relative_to(root)}:{number}"
                yield f"{where}: the reference may not reach {name} (by {chain})"
            elif target not in seen:
                seen.add(target)
                waiting.append((target, f"{chain} -> {target.name}"))


def check_size(root: Path, path: Path):
    name = path.relative_to(root).as_posix()
    lines = path.read_text(encoding="utf-8").splitlines()
    limit = MAX_KERNEL_LINES if "/kernels/" in name else MAX_LINES
    if len(lines) > limit:
        yield f"{name}:{limit + 1}: {len(lines)} lines, at most {limit}"
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_COLUMNS and not INCLUDE.match(line):
            yield f"{name}:{number}: {len(line)} columns, at most {MAX_COLUMNS}"


def check_columns_of_text(root: Path, path: Path):
    """Markdown: paragraphs and lists, but no tables, no code, and nothing without a space."""
    name = path.relative_to(root).as_posix()
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        start = line.lstrip()
        if start.startswith("```"):
            fenced = not fenced
        if fenced or line.startswith("    ") or start.startswith("|") or " " not in start:
            continue
        if len(line) > MAX_COLUMNS:
            yield f"{name}:{number}: {len(line)} columns, at most {MAX_COLUMNS}"


def markdown(root: Path):
    """The documents of the tree that are to be wrapped."""
    folders = [root / f for f in [*FOLDERS, "docs"]]
    found = [*root.glob("*.md"), *(p for f in folders for p in f.rglob("*.md"))]
    return sorted(p for p in found if p.relative_to(root).as_posix() not in NOT_WRAPPED)


def check(root: Path) -> list[str]:
    """Every complaint about the tree at root."""
    root = root.resolve()
    found = (p for f in FOLDERS for p in (root / f).rglob("*"))
    files = sorted(p for p in found if p.is_file() and p.suffix in CODE)
    files += [p for p in [root / "dev", root / ".ci/run"] if p.is_file()]
    complaints = [c for p in files for c in check_size(root, p)]
    complaints += [c for p in files if p.suffix in C_FAMILY for c in check_direction(root, p)]
    complaints += [c for p in markdown(root) for c in check_columns_of_text(root, p)]
    return complaints + list(check_reference(root))


if __name__ == "__main__":
    found = check(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
    print("\n".join(found) if found else "layers and sizes: nothing to complain about")
    sys.exit(1 if found else 0)
