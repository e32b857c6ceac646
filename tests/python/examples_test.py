"""The examples in short, and every Python block of the documentation."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(name, *arguments):
    return runpy.run_path(str(ROOT / "examples" / name))["main"](list(arguments))


def test_embeddings_equal_eager(tmp_path):
    picture = tmp_path / "embeddings.png"
    result = run("embeddings.py", "--sentences", "60", "--repeats", "1", "--plot", str(picture))
    assert result["sentences"] == 60
    assert result["largest_difference"] < 1e-5
    assert picture.stat().st_size > 1000


def test_training_equals_sdpa(tmp_path):
    picture = tmp_path / "losses.png"
    result = run("train_gpt.py", "--steps", "5", "--seqlen", "128", "--plot", str(picture))
    assert result["largest_difference"] < 1e-3
    assert result["last_loss"] < result["first_loss"]
    assert picture.stat().st_size > 1000


def blocks():
    for document in ("README.md", "docs/python.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.S), 1):
            yield pytest.param(code, id=f"{document}-{number}")


@pytest.mark.parametrize("code", list(blocks()))
def test_documentation(code, capsys):
    if "mlx" in code and sys.platform != "darwin":
        pytest.importorskip("mlx.core")
    exec(compile(code, "documentation", "exec"), {"__name__": "documentation"})
