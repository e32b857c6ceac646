"""Device metal:0 from the command line, in a program that was built for one: softmetal or a Mac."""

import json

import numpy
import pytest


@pytest.fixture(autouse=True)
def metal(devices, monkeypatch, tmp_path):
    if "metal:0" not in devices:
        pytest.skip("this program has no Metal device")
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def counting(ingot):
    if "softmetal" not in ingot("devices").stdout:
        pytest.skip("a Metal device that is none of software has times, not counts")


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("float16", 2e-3)])
def test_run_gives_the_references_answer(ingot, tmp_path, rng, dtype, tolerance):
    for name, shape in {"q": (4, 35, 40), "k": (2, 70, 40), "v": (2, 70, 24)}.items():
        numpy.save(tmp_path / f"{name}.npy", rng.standard_normal(shape).astype(dtype))
    numpy.save(tmp_path / "dout.npy", rng.standard_normal((4, 35, 24)).astype(dtype))
    results = ["o", "lse", "dq", "dk", "dv"]

    def run(device):
        files = [f"{device[0]}-{name}.npy" for name in results]
        operands = [w for n in ["q", "k", "v", "dout"] for w in (f"--{n}", f"{n}.npy")]
        outputs = [w for n, f in zip(results, files, strict=False) for w in (f"--{n}", f)]
        causal = ["--causal", "bottom_right", "--softcap", 20]
        ingot("run", *operands, *outputs, *causal, "--device", device)
        return [numpy.load(tmp_path / f).astype("float64") for f in files]

    for name, ours, theirs in zip(results, run("metal:0"), run("reference"), strict=False):
        assert ours.shape == theirs.shape
        assert numpy.isfinite(theirs).all()
        error = numpy.abs(ours - theirs).max() / numpy.abs(theirs).max()
        assert error < tolerance, f"{name}: {error}"


def counted(ingot, tmp_path, words):
    text = ingot("bench", "--device", "metal", "--filter", words, "--json", "bench.json").stdout
    first = text.splitlines()[0]
    assert first == "device metal, executed on a software Metal device: counts, not times"
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["counted"] is True and written["results"]
    for row in written["results"]:
        assert row["matrix_operations"] >= row["least_matrix_operations"] > 0
        assert row["threadgroups"] > 0
    return written["results"]


def test_bench_counts_where_the_device_is_software(ingot, tmp_path, counting, monkeypatch):
    # Without checks softmetal counts no bytes, and is ten times as fast.
    monkeypatch.setenv("SOFTMETAL_CHECKS", "off")
    rows = counted(ingot, tmp_path, "f32 x64")
    assert all(row["device_bytes_read"] == 0 for row in rows)
    assert counted(ingot, tmp_path, "f32 x64") == rows, "counts are no timings"


def test_bench_counts_bytes_where_softmetal_checks(ingot, tmp_path, counting):
    # Each of q, k, v is read once at least, and o is written.
    operand = 256 * 64 * 4
    for row in counted(ingot, tmp_path, "f32 x64 causal forward"):
        assert row["device_bytes_read"] >= 3 * operand
        assert row["device_bytes_written"] >= operand


def test_devices_and_explain_name_the_kernels(ingot):
    assert "metal:0" in ingot("devices").stdout
    shape = ["--seqlen-q", 1, "--seqlen-k", 4096, "--head-dim", 64]
    text = ingot("explain", *shape, "--device", "metal").stdout
    assert "metal/kernels/decode.metal" in text and "metal/kernels/combine.metal" in text
