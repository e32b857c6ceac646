"""Runs the program named by the environment variable INGOT_CLI; NumPy says what is right."""

import json
import os
import subprocess
from pathlib import Path

import numpy
import pytest

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = ROOT / "examples/data/minilm.safetensors"


@pytest.fixture(scope="session")
def program():
    path = Path(os.environ.get("INGOT_CLI", ROOT / "build/release/ingot")).resolve()
    assert path.is_file(), f"no program at {path}: build it, or set INGOT_CLI"
    return path


@pytest.fixture
def ingot(program, tmp_path):
    """ingot("run", ..., code=0): runs the program in tmp_path and returns the finished process."""

    def call(*arguments, code=0, **options):
        command = [str(program), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=600, **options
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture
def rng():
    return numpy.random.default_rng(20)


@pytest.fixture(scope="session")
def devices(program):
    done = subprocess.run(
        [program, "devices", "--json"], capture_output=True, text=True, check=True
    )
    return [device["name"] for device in json.loads(done.stdout)["devices"]]
