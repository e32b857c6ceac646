"""The stubs say what the modules have: mypy's stubtest compares them with what it imports."""

import subprocess
import sys
from pathlib import Path

MODULES = ["", ".torch", ".transformers", ".jax", ".compat.flash_attn", ".mlx"]


def test_stubs_agree_with_the_modules(tmp_path):
    modules = [f"ingot{name}" for name in MODULES if name != ".mlx" or sys.platform == "darwin"]
    output = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "--ignore-disjoint-bases", *modules],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert output.returncode == 0, output.stdout + output.stderr


def test_a_program_that_uses_them_is_checked(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import ingot\nimport numpy as np\n"
        "q = np.ones((1, 1, 4, 8), np.float32)\n"
        "o, lse = ingot.attention(q, q, q, causal='top_left', return_lse=True)\n"
        "ingot.attention(q, q, q, causal=True)\n"
    )
    command = [sys.executable, "-m", "mypy", "--no-incremental", str(program)]
    output = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    errors = [line for line in output.stdout.splitlines() if "error:" in line]
    assert len(errors) == 1, output.stdout + output.stderr
    assert "program.py:5" in errors[0]
    assert Path(program).name in errors[0]
