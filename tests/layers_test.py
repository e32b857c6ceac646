"""layers.py must find each kind of break in a tree that is otherwise in order."""

import pytest
from layers import check

ORDERLY = {
    "include/ingot/ingot.h": "#include <stdint.h>\n",
    "src/algorithm/score.h": "",
    "src/core/plan.hpp": '#include "algorithm/score.h"\n#include "ingot/ingot.h"\n',
    "src/cpu/flash.cpp": '#include "core/plan.hpp"\n#include "algorithm/score.h"\n',
    "src/cpu/reference.cpp": '#include "core/problem.hpp"\n',
    "src/core/problem.hpp": "",
    "src/cuda/kernels/tile.cuh": "",
    "src/cuda/kernels/forward.cuh": '#include "tile.cuh"\n#include "algorithm/score.h"\n',
    "src/backends.cpp": '#include "cpu/cpu_backend.hpp"\n',
    "src/cpu/cpu_backend.hpp": "",
    "tools/ingot/main.cpp": '#include "ingot/ingot.h"\n#include "cases.hpp"\n',
    "tests/cases.hpp": "",
    "docs/hopper.md": f"| {'a table ' * 20}|\n\n```\n{'code ' * 30}\n```\n\n    {'code ' * 30}\n",
    "tests/plan_test.cpp": '#include "core/plan.hpp"\n',
}

BREAKS = [
    ("src/core/plan.hpp", '#include "cpu/cpu_backend.hpp"\n', "src/core may not include"),
    ("src/cpu/flash.cpp", '#include "cuda/cuda_device.hpp"\n', "src/cpu may not include"),
    ("src/algorithm/score.h", '#include "core/plan.hpp"\n', "src/algorithm may not include"),
    ("include/ingot/ingot.h", '#include "core/plan.hpp"\n', "include may not include"),
    ("src/cuda/device.cpp", '#include "cuda/kernels/tile.cuh"\n', "src/cuda may not include"),
    ("src/cuda/kernels/tile.cuh", '#include "core/plan.hpp"\n', "kernels may not include"),
    ("tools/ingot/main.cpp", '#include "core/plan.hpp"\n', "tools may not include"),
    ("src/cpu/reference.cpp", '#include "core/plan.hpp"\n', "the reference may not reach"),
    ("src/cpu/flash.cpp", "// " + "x" * 98 + "\n", "101 columns, at most 100"),
    ("docs/hopper.md", "word " * 20 + "word\n", "104 columns, at most 100"),
    ("src/cpu/flash.cpp", "\n" * 401, "401 lines, at most 400"),
    ("src/cuda/kernels/tile.cuh", "\n" * 301, "301 lines, at most 300"),
]


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_orderly_tree_passes(tmp_path):
    write(tmp_path, ORDERLY)
    assert check(tmp_path) == []


@pytest.mark.parametrize("name, text, complaint", BREAKS)
def test_break_is_found(tmp_path, name, text, complaint):
    write(tmp_path, ORDERLY | {"src/cuda/cuda_device.hpp": ""} | {name: text})
    found = check(tmp_path)
    assert len(found) == 1
    assert complaint in found[0]
