"""Numbers are taken as typed, and nothing on the command line is ignored."""

import json
import os
import resource
import subprocess
import sys

import numpy
import pytest

NPY = ["--q", "q.npy", "--k", "k.npy", "--v", "v.npy"]
EXPLAIN = ["explain", "--seqlen-q", "9", "--head-dim", "64"]


@pytest.fixture
def usage(ingot):
    """usage("explain", ..., says=TEXT): wrong usage, in one line."""

    def call(*arguments, says):
        done = ingot(*arguments, code=2)
        assert done.stderr.startswith("ingot: ") and done.stderr.count("\n") == 1
        assert says in done.stderr and done.stdout == ""

    return call


RANGES = [
    ("explain", "--batch", 0),
    ("explain", "--heads", 1),
    ("explain", "--heads-kv", 1),
    ("explain", "--seqlen-q", 0),
    ("explain", "--seqlen-k", 0),
    ("explain", "--head-dim", 1),
    ("explain", "--head-dim-v", 1),
    ("explain", "--workspace-limit", 1),
    ("explain", "--threads", 0),
    ("model", "--seqlen", 1),
    ("model", "--head-dim", 1),
    ("model", "--heads", 1),
    ("tune", "--heads", 1),
    ("tune", "--heads-kv", 1),
    ("tune", "--seqlen", 1),
    ("tune", "--head-dim", 1),
    ("tune", "--head-dim-v", 1),
    ("check", "--jobs", 1),
    ("demo", "--layer", 1),
]


@pytest.mark.parametrize("command, option, low", RANGES, ids=str)
def test_sizes_that_cannot_be(usage, command, option, low):
    for typed in (str(low - 1), "99999999999999999999", "-99999999999999999999"):
        usage(command, option, typed, says=f"{option}: must be a whole number ")
        usage(command, option, typed, says=f", got {typed}\n")


@pytest.mark.parametrize("typed", ["0x10", "1e3", "8.0", "8 ", " 8", "+8", "1_000", "8,", "eight"])
def test_what_is_no_decimal_number(usage, typed):
    usage(*EXPLAIN, "--heads", typed, says=f"got {typed}\n")


def test_a_number_with_leading_zeros_is_decimal(ingot):
    text = ingot("model", "--chip", "m1", "--head-dim", "0064", "--json").stdout
    assert json.loads(text)["rows"][0]["head_dim"] == 64
    same = (ingot(*EXPLAIN, "--heads", heads).stdout for heads in ("010", "10"))
    assert len(set(same)) == 1


def test_heads_that_do_not_share_keys(usage):
    for command in (EXPLAIN, ["tune"]):
        heads = ["--heads", "6", "--heads-kv", "4"]
        usage(*command, *heads, says="--heads-kv: must divide --heads, 6, got 4")


@pytest.mark.parametrize("typed", ["1e-50", "1e39", "-1e39", "nan", "inf", "0", "0.0"])
def test_a_scale_that_f32_does_not_have(usage, typed):
    usage(*EXPLAIN, "--scale", typed, says="--scale: must be a finite number other than 0")
    usage(*EXPLAIN, "--scale", typed, says=f"got {typed}\n")
    usage(*EXPLAIN, "--softcap", typed, says="--softcap: must be a finite number above 0")
    usage(*EXPLAIN, "--softcap", typed, says=f"got {typed}\n")


def test_numbers_that_are_none(usage):
    for typed in ("1x", "", " 1", "1,5"):
        usage(*EXPLAIN, "--scale", typed, says="--scale: must be a number")
    for typed in ("nan", "-1", "3601"):
        usage("bench", "--seconds", typed, says=f"--seconds: must be from 0 to 3600, got {typed}")


def test_one_command_at_a_time(usage):
    for first in ("devices", "devices"), ("devices", "explain"):
        usage(*first, says="not expected")
    usage("devices", *EXPLAIN, says="not expected")


EMPTY = [
    ("bench", "--json"),
    ("bench", "--plot"),
    ("bench", "--filter"),
    ("bench", "--device"),
    ("check", "--filter"),
    ("demo", "--data"),
    ("demo", "--svg"),
    ("explain", "--window"),
    ("explain", "--out-dtype"),
    ("model", "--chip"),
    ("tune", "--table"),
    *(("run", option) for option in ("--o", "--lse", "--dout", "--dq", "--in", "--out")),
]


@pytest.mark.parametrize("command, option", EMPTY, ids=str)
def test_empty_texts(usage, command, option):
    usage(command, option, "", says=f"{option}: must not be empty")


def test_options_without_effect(usage):
    usage(*EXPLAIN, "--backward", says="--backward requires --source")
    says = "--out-dtype: goes with --o, --dq, --dk or --dv"
    usage("run", *NPY, "--lse", "l.npy", "--out-dtype", "f16", says=says)
    usage("model", "--published", "--chip", "m1", says="excludes")
    usage("model", "--published", "--head-dim", "64", says="excludes")


def test_tune_is_of_a_cuda_device(ingot, tmp_path):
    for device in ("cpu", "reference", "auto", "cuda:77"):
        done = ingot("tune", "--device", device, "--table", "t.txt", code=1)
        says = f"ingot: --device: must be a CUDA device of this machine, got {device}"
        assert done.stderr.startswith(says) and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_tune_without_a_table(ingot, monkeypatch):
    monkeypatch.setenv("INGOT_CUDA_TUNING", "off")
    done = ingot("tune", code=1)
    assert done.stderr == "ingot: --table: INGOT_CUDA_TUNING is off, name a file\n"


NOBODY = 65534


def without_threads():
    """As a user who may have no thread more than the processes there are."""
    os.setgroups([])
    os.setgid(NOBODY)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    os.setuid(NOBODY)


@pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="only root can become another user"
)
def test_no_more_threads_are_to_be_had(program):
    def run(*arguments):
        try:
            done = subprocess.run(
                [program, *arguments],
                cwd="/",
                capture_output=True,
                text=True,
                timeout=600,
                preexec_fn=without_threads,
            )
        except PermissionError:
            pytest.skip("another user may not run this build")
        assert done.returncode == 0, done.stderr
        return done

    done = run("check", "--filter", "b2_h6x2", "--device", "reference", "--jobs", "4")
    assert done.stdout.splitlines()[-1].endswith(" 0 failed, 0 skipped")
    assert done.stderr.startswith("ingot: note: 1 of 4 threads, the system has no more")
    tiny = ["--filter", "tiny 1x1x16x64 f32 forward", "--seconds", "0.01"]
    done = run("bench", *tiny, "--device", "cpu", "--threads", "3")
    assert "ceilings of 1 threads" in done.stdout
    assert done.stderr.startswith("ingot: note: 1 of 3 threads")


def test_an_array_of_many_empty_entries_takes_no_time(ingot, tmp_path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1, 0, 64), }"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    (tmp_path / "z.npy").write_bytes(data)
    z = ["--q", "z.npy", "--k", "z.npy", "--v", "z.npy"]
    ingot("run", *z, "--o", "o.npy")
    assert numpy.load(tmp_path / "o.npy").shape == (1 << 40, 1, 0, 64)
