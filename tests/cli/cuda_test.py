"""Device cuda from the command line, on a driver that needs no GPU (tests/fake)."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

FAKE = Path(os.environ.get("INGOT_CLI", "")).parent / "tests" / "libfake_cuda.so"
ROW = "forward_sm90 arch=sm_90a element=bf16 planes=1 head_dim=64 head_dim_v=64"


@pytest.fixture
def fake_gpu(monkeypatch, tmp_path):
    if not FAKE.is_file():
        pytest.skip("the fake CUDA driver is built on Linux, beside the tests")
    monkeypatch.setenv("INGOT_LIBCUDA", str(FAKE))
    monkeypatch.setenv("INGOT_LIBNVRTC", str(FAKE))
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_no_driver_is_said(ingot, monkeypatch):
    monkeypatch.setenv("INGOT_LIBCUDA", "/nowhere/libcuda.so.1")
    reason = "INGOT_LIBCUDA: cannot open /nowhere/libcuda.so.1"
    assert ingot("devices").stdout.endswith(f"no device cuda: {reason}\n")
    assert f"cuda skipped: no NVIDIA GPU ({reason})\n" in ingot("check", "--device", "cuda").stdout
    shape = ["--seqlen-q", "64", "--head-dim", "64"]
    assert ingot("explain", *shape, "--device", "cuda", code=1).stderr.endswith(
        f"got cuda: {reason}\n"
    )


def test_bench_times_by_the_devices_clock(ingot, fake_gpu):
    text = ingot(
        "bench", "--device", "cuda", "--filter", "encoder bf16", "--seconds", "0.01"
    ).stdout
    assert text.startswith("device cuda") and "2.00" in text  # the fake's events are 2 ms apart


def test_precision_decides_how_many_terms_f32_has(ingot, fake_gpu):
    shape = ["--heads", "16", "--seqlen-q", "4096", "--head-dim", "64", "--device", "cuda"]
    for precision, terms in (("highest", 3), ("high", 2)):
        text = ingot("explain", *shape, "--precision", precision).stdout
        assert f"f32 as sums of {terms} terms of bf16" in text, precision


def test_a_table_is_picked_up(ingot, fake_gpu):
    shape = ["--heads", "16", "--head-dim", "64", "--dtype", "bf16"]
    tuned = ingot("tune", *shape, "--seqlen", "512", "--seconds", "0.01").stdout
    assert "the built-in tile stays" in tuned  # on the fake all take the same time
    table = fake_gpu / "cache" / "tuning" / "cuda.txt"
    assert not table.exists()
    table.parent.mkdir(parents=True)
    table.write_text(f"Fake GPU | {ROW} | block_n=48 |\n")
    text = ingot("explain", *shape, "--seqlen-q", "4096", "--device", "cuda").stdout
    assert "block_n         48" in text and str(table) in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a set-user-id program")
def test_a_set_user_id_program_is_not_told_what_to_load(program, fake_gpu):
    nobody = 65534
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        copy = shutil.copy(program, folder)

        def devices():
            done = subprocess.run(
                [copy, "devices"], user=nobody, cwd="/", capture_output=True, text=True
            )
            return done.stdout

        os.chmod(copy, 0o755)
        if "Fake GPU" not in devices():
            pytest.skip("another user cannot come to this tree")
        os.chmod(copy, 0o4755)
        assert "\ncpu" in "\n" + devices() and "Fake GPU" not in devices()


def test_why_kernels_are_not_kept_is_said(ingot, fake_gpu):
    cache = fake_gpu / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    assert f"no kernel cache: others may write to {cache}" in ingot("devices").stdout


def test_a_table_that_is_no_file_is_refused_before_anything_is_measured(ingot, fake_gpu):
    os.mkfifo(fake_gpu / "pipe")
    done = ingot("tune", "--seqlen", "512", "--table", "pipe", code=1)
    assert done.stderr == "ingot: pipe: exists and is not a regular file\n" and done.stdout == ""
