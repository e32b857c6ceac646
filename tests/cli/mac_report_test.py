"""bench/mac_report.py, with the CPU in the place of a Mac's GPU."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "mac_report.py"


def report(program, device, folder):
    command = [sys.executable, SCRIPT, program, "--device", device, "--output", folder, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done, json.loads((folder / "ingot-report.json").read_text())


def test_report_holds_every_step(program, tmp_path):
    done, written = report(program, "cpu", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(step["status"] == 0 for step in written["steps"].values())
    assert " 0 failed" in written["steps"]["check"]["stdout"]
    assert written["bench"]["results"]
    text = (tmp_path / "ingot-report.txt").read_text()
    assert "== check: ok" in text
    assert "== bench: ok" in text


def test_a_step_that_fails_is_reported(program, tmp_path):
    done, written = report(program, "metal:7", tmp_path)
    assert done.returncode == 1
    assert written["steps"]["devices"]["status"] == 0
    assert written["steps"]["explain"]["status"] != 0
    assert "metal:7" in written["steps"]["explain"]["stderr"]
    assert "== explain: FAILED" in (tmp_path / "ingot-report.txt").read_text()
