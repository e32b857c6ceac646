"""The other commands: devices, explain, check, bench, demo, and every --help."""

import json
import re
import xml.etree.ElementTree as ET

import pytest
from conftest import SENTENCE

COMMANDS = ["devices", "explain", "run", "check", "bench", "demo", "model"]


@pytest.mark.parametrize("command", [[], *([c] for c in COMMANDS)], ids=str)
def test_help(ingot, command):
    done = ingot(*command, "--help")
    assert "--help" in done.stdout and done.stderr == ""
    for name in COMMANDS if not command else ["Usage: ingot " + command[0]]:
        assert name in done.stdout


def test_version(ingot):
    assert re.fullmatch(r"ingot \d+\.\d+\.\d+\n", ingot("--version").stdout)


def test_devices(ingot, devices):
    lines = ingot("devices").stdout.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("no device ")] == devices
    assert devices[-1] == "reference"
    listed = json.loads(ingot("devices", "--json").stdout)["devices"]
    assert all(device["description"] for device in listed)


def test_explain(ingot, devices):
    shape = [
        "--heads",
        8,
        "--heads-kv",
        2,
        "--seqlen-q",
        100,
        "--head-dim",
        64,
        "--causal",
        "top_left",
    ]
    assert devices[0] in ingot("explain", *shape).stdout
    assert isinstance(json.loads(ingot("explain", *shape, "--json").stdout), dict)
    other = ingot("explain", *shape, "--device", "reference", "--dtype", "bf16", "--window", "-1,0")
    assert "reference" in other.stdout
    done = ingot("explain", *shape, "--source", "--device", "reference", code=1)
    assert done.stderr.startswith("ingot: ") and done.stdout == ""
    done = ingot("explain", "--seqlen-q", 9, "--head-dim", 2000, code=1)
    assert "head_dim" in done.stderr and "2000" in done.stderr


def counts(done):
    return tuple(
        map(
            int,
            re.fullmatch(
                r"(\d+) passed, (\d+) failed, (\d+) skipped", done.stdout.splitlines()[-1]
            ).groups(),
        )
    )


def test_check_quick(ingot, devices):
    passed, failed, skipped = counts(ingot("check", "--quick", "--filter", "_q37_k70_"))
    others = len(devices) - 1
    assert (passed, failed, skipped) == (passed, 0, 0) and (passed > 0) == (others > 0)


def test_check_of_the_reference_itself(ingot):
    passed, failed, skipped = counts(ingot("check", "--device", "reference", "--filter", "b2_h6x2"))
    assert passed > 0 and failed == 0 and skipped == 0


def test_check_reports_the_same_with_several_jobs(ingot):
    one, many = (
        ingot("check", "--device", "reference", "--filter", "_q37_k70_", *jobs).stdout
        for jobs in ([], ["--jobs", "3"])
    )
    assert one == many and "0 failed" in one
    assert "--jobs" in ingot("check", "--jobs", "0", code=2).stderr


def test_check_takes_a_precision(ingot):
    done = ingot("check", "--filter", "f32_b1_h1x1_q37_k70_d17", "--precision", "high")
    passed, failed, skipped = counts(done)
    assert passed > 0 and failed == 0
    assert "--precision" in ingot("check", "--precision", "medium", code=2).stderr


def test_check_of_an_absent_device_is_a_skip_that_says_so(ingot):
    for device, says in (("cuda:77", "NVIDIA GPU"), ("metal:77", "Apple GPU")):
        done = ingot("check", "--device", device, "--filter", "b2_h6x2")
        passed, failed, skipped = counts(done)
        assert (passed, failed) == (0, 0) and skipped > 0
        assert f"{device} skipped: no" in done.stdout and says in done.stdout


def test_no_progress_bar_without_a_terminal(ingot):
    done = ingot("check", "--device", "reference", "--filter", "b2_h6x2")
    assert done.stderr == "" and "\r" not in done.stdout and "\033" not in done.stdout


def test_bench(ingot, tmp_path, devices):
    done = ingot(
        "bench", "--filter", "tiny", "--seconds", 0.01, "--json", "b.json", "--plot", "b.svg"
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("tiny")]
    assert len(lines) == 6 and "TFLOP/s" in done.stdout and "GINSTRS" in done.stdout
    report = json.loads((tmp_path / "b.json").read_text())
    assert report["device"] == devices[0]
    assert {"cpu", "threads", "version", "date", "compiler"} <= set(report["environment"])
    assert len(report["results"]) == 6
    for row in report["results"]:
        assert 0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"] and row["runs"] >= 3
        pairs, seconds = 16 * 16, row["median_ms"] / 1e3
        flops, instructions = (
            (4 * 64, 2 * 64 + 5) if row["pass"] == "forward" else (10 * 64, 7 * 64 + 10)
        )
        assert row["tflops"] == pytest.approx(pairs * flops / seconds / 1e12)
        assert row["ginstrs"] == pytest.approx(pairs * instructions / seconds / 1e9)
    if devices[0] == "cpu":
        assert (
            report["ceilings"]["matrix_product_gflops"] > 1
            and report["ceilings"]["memory_read_gbps"] > 0.1
        )
        ratio = report["results"][0]["tflops"] * 1e3 / report["ceilings"]["matrix_product_gflops"]
        assert report["results"][0]["of_matrix_product"] == pytest.approx(ratio)
    texts = [
        node.text
        for node in ET.parse(tmp_path / "b.svg").getroot().iter()
        if node.tag.endswith("text")
    ]
    assert f"Attention on {devices[0]}" in texts and {"f32", "f16", "bf16"} <= set(texts)
    assert any("GFLOP/s" in text for text in texts)


def test_bench_writes_nothing_when_it_fails(ingot, tmp_path):
    ingot("bench", "--filter", "tiny", "--json", "b.json", "--plot", "none/b.svg", code=1)
    assert list(tmp_path.iterdir()) == []


def test_demo(ingot, tmp_path, devices):
    done = ingot("demo", "--data", SENTENCE, "--svg", "a.svg")
    assert "\033" not in done.stdout and done.stderr == ""
    others = [device for device in devices if device != "reference"]
    for device in others:
        assert re.search(rf"^{device}: forward .* -> correct$", done.stdout, re.M)
        assert f"forward on {device}" in done.stdout
    for model in ("llama3-8b", "gemma", "sd-1.5", "vit", "deepseek-mla") if others else ():
        assert model in done.stdout
    assert (
        "What each word attends to, layer" in done.stdout
        and "The mean of all 72 heads" in done.stdout
    )
    root = ET.parse(tmp_path / "a.svg").getroot()
    words = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert words.count("alice") == 2 and "attends to" in words
    cells = [node for node in root.iter() if node.tag.endswith("title")]
    assert len(cells) == 25 * 25


def test_demo_with_files_that_are_not_a_sentence(ingot, tmp_path):
    from attention import safetensors_bytes
    from numpy import zeros

    one = zeros((1, 1, 2, 4), "float32")
    (tmp_path / "x").write_bytes(safetensors_bytes({"q": one, "k": one, "v": one}))
    assert "x: metadata tokens is not a JSON list" in ingot("demo", "--data", "x", code=1).stderr
    data = safetensors_bytes({"q": one, "k": one, "v": one}, {"tokens": '["a"]'})
    (tmp_path / "x").write_bytes(data)
    assert (
        "x: q, k and v must be [layers, heads, 1 tokens"
        in ingot("demo", "--data", "x", code=1).stderr
    )
