"""ALiBi, bias, masks, sinks, dropout and prefixes on ingot run, explain and bench."""

import json

import numpy
import pytest
from attention import attention, read_safetensors, safetensors_bytes

BATCH, HEADS, ROWS, COLS = 2, 4, 19, 30
PAIRS = (BATCH, HEADS, ROWS, COLS)
INPUTS = ["q", "k", "v", "dout"]
RESULTS = ["o", "lse", "dq", "dk", "dv"]
NPY = ["--q", "q.npy", "--k", "k.npy", "--v", "v.npy"]


def tensors(rng):
    shapes = {"q": (HEADS, ROWS), "k": (2, COLS), "v": (2, COLS), "dout": (HEADS, ROWS)}
    return {
        name: rng.standard_normal((BATCH, *shape, 8)).astype("float32")
        for name, shape in shapes.items()
    }


@pytest.fixture
def saved(tmp_path, rng):
    """q, k, v and dout, as arrays and as files."""
    arrays = tensors(rng)
    for name, array in arrays.items():
        numpy.save(tmp_path / f"{name}.npy", array)
    return arrays


def run(ingot, folder, parts, results, *options):
    """The results of a call with the parts, options of the command line to arrays."""
    files = [*INPUTS, *results]
    for name, array in parts.items():
        numpy.save(folder / f"{name}.npy", array)
        files.append(name)
    arguments = [text for name in files for text in (f"--{name}", f"{name}.npy")]
    ingot("run", *arguments, *options)
    return {name: numpy.load(folder / f"{name}.npy") for name in results}


def check(got, want):
    for name, array in got.items():
        numpy.testing.assert_allclose(array, want[name], rtol=3e-5, atol=3e-5, err_msg=name)


def named(parts):
    return {name.replace("-", "_"): array for name, array in parts.items()}


def normal(*shape, dtype="float32"):
    return numpy.random.default_rng(3).standard_normal(shape).astype(dtype)


def half(*shape):
    return numpy.random.default_rng(4).random(shape) < 0.5


PARTS = [
    {"alibi": 2.0 ** -numpy.arange(1.0, HEADS + 1, dtype="float32")},
    {"alibi": normal(BATCH, HEADS) ** 2},
    {"bias": normal(*PAIRS)},
    {"bias": normal(1, HEADS, 1, COLS)},
    {"bias": normal(ROWS, COLS)},
    {"bias": normal(BATCH, 1, ROWS, 1)},
    {"bias": numpy.asfortranarray(normal(HEADS, ROWS, COLS))},
    {"bias": normal(1, COLS)},
    {"mask": half(*PAIRS)},
    {"mask": half(BATCH, 1, 1, COLS)},
    {"mask": half(ROWS, COLS).astype("uint8") * 2},
    {"sinks": normal(HEADS)},
    {"prefix-len": numpy.array([7, 2])},
    {"prefix-len": numpy.array([-4, 1 << 40])},
    {"prefix-len": numpy.array([3, 100], "int32")},
    {
        "alibi": normal(HEADS) ** 2,
        "bias": normal(HEADS, ROWS, COLS),
        "mask": half(BATCH, 1, ROWS, COLS),
        "sinks": normal(HEADS),
        "prefix-len": numpy.array([7, 2]),
    },
]


@pytest.mark.parametrize(
    "parts", PARTS, ids=lambda p: " ".join(f"{k}{v.shape}" for k, v in p.items())
)
def test_parts(ingot, tmp_path, saved, parts):
    results = [*RESULTS, *(f"d{name}" for name in ("bias", "sinks") if name in parts)]
    causal = "bottom_right" if "prefix-len" in parts else "none"
    got = run(ingot, tmp_path, parts, results, "--causal", causal)
    check(got, attention(**saved, causal=causal, **named(parts)))
    if "bias" in parts:
        assert got["dbias"].shape == parts["bias"].shape


def test_alibi_counts_from_where_causal_has_the_row(ingot, tmp_path, saved):
    parts = {"alibi": numpy.full(HEADS, 0.3, "float32")}
    for causal in ("none", "top_left", "bottom_right"):
        got = run(ingot, tmp_path, parts, RESULTS, "--causal", causal)
        check(got, attention(**saved, causal=causal, **parts))


def test_parts_of_other_dtypes_are_converted(ingot, tmp_path, saved):
    parts = {
        "alibi": normal(HEADS, dtype="float64") ** 2,
        "bias": normal(COLS, dtype="float64"),
        "sinks": normal(HEADS, dtype="float16"),
    }
    for name, array in parts.items():
        numpy.save(tmp_path / f"{name}.npy", array)
    files = [*INPUTS, *parts, "o", "dbias", "dsinks"]
    done = ingot("run", *(text for name in files for text in (f"--{name}", f"{name}.npy")))
    assert done.stderr == "ingot: note: alibi, bias converted from f64 to f32\n"
    got = {name: numpy.load(tmp_path / f"{name}.npy") for name in ("o", "dbias", "dsinks")}
    check(got, attention(**saved, **parts))
    half_bias = {"bias": normal(COLS, dtype="float16")}
    got = run(ingot, tmp_path, half_bias, ["dbias"])
    assert got["dbias"].dtype == numpy.float16
    want = attention(**saved, **half_bias)["dbias"]
    numpy.testing.assert_allclose(got["dbias"], want, rtol=2e-3, atol=2e-3)


def test_parts_do_not_follow_the_layout(ingot, tmp_path, saved):
    parts = {"bias": normal(HEADS, ROWS, COLS), "mask": half(ROWS, COLS)}
    want = attention(**saved, **parts)
    for name, array in saved.items():
        numpy.save(tmp_path / f"{name}.npy", array.swapaxes(1, 2))
    got = run(ingot, tmp_path, parts, ["o", "dbias"], "--layout", "bshd")
    check({"o": got["o"].swapaxes(1, 2), "dbias": got["dbias"]}, want)


def test_dropout_follows_its_seed(ingot, tmp_path, saved):
    def result(*options):
        return run(ingot, tmp_path, {}, ["o", "lse", "dv"], "--dropout", 0.5, *options)

    first, again, other = result("--seed", 7), result("--seed", 7), result("--seed", (1 << 64) - 1)
    unseeded, zero = result(), result("--seed", 0)
    plain = attention(**saved)
    for name in ("o", "dv"):
        assert (first[name] == again[name]).all() and (unseeded[name] == zero[name]).all()
        assert not numpy.allclose(first[name], other[name])
        assert not numpy.allclose(first[name], plain[name])
    numpy.testing.assert_allclose(first["lse"], plain["lse"], rtol=3e-5, atol=3e-5)


def test_safetensors_with_parts_get_all_gradients(ingot, tmp_path, saved):
    parts = {"bias": normal(1, COLS), "sinks": normal(HEADS), "mask": half(*PAIRS)}
    (tmp_path / "in.safetensors").write_bytes(safetensors_bytes(saved))
    files = []
    for name, array in parts.items():
        numpy.save(tmp_path / f"{name}.npy", array)
        files += [f"--{name}", f"{name}.npy"]
    ingot("run", "--in", "in.safetensors", "--out", "out.safetensors", *files)
    got = read_safetensors(tmp_path / "out.safetensors")
    assert set(got) == {*RESULTS, "dbias", "dsinks"}
    check(got, attention(**saved, **parts))


@pytest.mark.parametrize(
    "name, array, says",
    [
        (
            "bias",
            normal(ROWS, COLS + 1),
            "bias: shape [19, 31] does not broadcast to [2, 4, 19, 30]",
        ),
        ("bias", normal(1, *PAIRS), "bias: shape [1, 2, 4, 19, 30] does not broadcast"),
        ("mask", half(3, 1, ROWS, COLS), "mask: shape [3, 1, 19, 30] does not broadcast"),
        ("alibi", normal(BATCH), "alibi: shape [2] does not broadcast to [2, 4]"),
        ("sinks", normal(1, HEADS), "sinks: shape [1, 4] does not broadcast to [4]"),
        ("prefix-len", numpy.arange(3), "prefix_len: shape [3] does not broadcast to [2]"),
        ("mask", normal(*PAIRS), "mask.npy: dtype '<f4' is not one of |b1, |u1"),
        ("bias", half(*PAIRS), "bias.npy: dtype '|b1' is not one of <f2, <f4, <f8"),
        ("prefix-len", normal(BATCH), "prefix-len.npy: dtype '<f4' is not one of <i4, <i8"),
    ],
)
def test_arrays_that_do_not_fit(ingot, tmp_path, saved, name, array, says):
    numpy.save(tmp_path / f"{name}.npy", array)
    before = sorted(tmp_path.iterdir())
    done = ingot("run", *NPY, "--o", "o.npy", f"--{name}", f"{name}.npy", code=1)
    assert done.stderr.startswith(f"ingot: {says}") and done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "options, says",
    [
        (["--dropout", "1"], "--dropout: must be at least 0 and below 1, got 1"),
        (["--dropout", "-0.1"], "--dropout: must be at least 0 and below 1, got -0.1"),
        (["--dropout", "half"], "--dropout"),
        (["--dropout", "0.1", "--seed", "-1"], "--seed: must be a whole number from 0 to"),
        (["--dropout", "0.1", "--seed", "18446744073709551616"], "--seed: must be"),
        (["--seed", "3"], "--seed: needs --dropout"),
        (["--dbias", "d.npy", "--dout", "dout.npy"], "--dbias: needs --bias"),
        (["--dsinks", "d.npy", "--dout", "dout.npy"], "--dsinks: needs --sinks"),
        (["--bias", "b.npy", "--dbias", "d.npy"], "--dout: is missing, gradients need it"),
    ],
)
def test_wrong_usage(ingot, tmp_path, saved, options, says):
    before = sorted(tmp_path.iterdir())
    done = ingot("run", *NPY, "--o", "o.npy", *options, code=2)
    assert done.stderr.startswith(f"ingot: {says}") and done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_gradient_that_cannot_be_written_leaves_none(ingot, tmp_path, saved):
    numpy.save(tmp_path / "bias.npy", normal(COLS))
    (tmp_path / "o.npy").write_bytes(b"old")
    files = ["--dout", "dout.npy", "--bias", "bias.npy", "--dbias", "none/dbias.npy"]
    ingot("run", *NPY, "--o", "o.npy", *files, code=1)
    assert (tmp_path / "o.npy").read_bytes() == b"old"


SHAPE = ["--heads", 4, "--seqlen-q", 32, "--head-dim", 64]
ALL = ["--alibi", "--mask", "--prefix-len", "--bias", "bf16", "--sinks", "f32", "--dropout", 0.1]


def test_explain_says_the_parts(ingot):
    told = json.loads(ingot("explain", *SHAPE, *ALL, "--device", "reference", "--json").stdout)
    problem = told["problem"]
    assert problem["alibi"] is problem["mask"] is problem["prefix"] is True
    assert (problem["bias_dtype"], problem["sinks_dtype"]) == ("bf16", "f32")
    assert problem["dropout"] == pytest.approx(0.1)
    ingot("explain", *SHAPE, "--bias", "f32", "--bias-shape", "1,4,1,32", "--device", "reference")


@pytest.mark.parametrize(
    "options, says",
    [
        (["--bias", "f64"], "--bias: must be f32, f16 or bf16, got f64"),
        (["--bias", "b.npy"], "--bias: must be f32, f16 or bf16, got b.npy"),
        (["--sinks", "u8"], "--sinks: must be f32, f16 or bf16, got u8"),
        (["--bias-shape", "1,1,1,1"], "--bias-shape: needs --bias"),
        (
            ["--bias", "f32", "--bias-shape", "1,4,32"],
            "--bias-shape: must be BATCH,HEADS,ROWS,COLS",
        ),
        (["--bias", "f32", "--bias-shape", "1,3,32,32"], "--bias-shape: must be"),
        (["--bias", "f32", "--bias-shape", "1,4,32,32,"], "--bias-shape: must be"),
        (["--seed", "3"], "--seed: needs --dropout"),
        (["--dtype", "u8"], "--dtype: must be f32, f16, bf16 or f64, got u8"),
    ],
)
def test_wrong_usage_of_explain(ingot, options, says):
    done = ingot("explain", *SHAPE, *options, code=2)
    assert done.stderr.startswith(f"ingot: {says}") and done.stderr.count("\n") == 1


def test_bench_with_parts(ingot, tmp_path):
    tiny = ["--filter", "tiny 1x1x16x64 f32", "--seconds", 0.01, "--json", "b.json"]
    done = ingot("bench", *tiny, "--device", "reference", *ALL)
    rows = json.loads((tmp_path / "b.json").read_text())["results"]
    assert [row["pass"] for row in rows] == ["forward", "backward"]
    for row in rows:
        assert row["name"].endswith(" alibi bias mask prefix sinks dropout")
        assert row["name"] in done.stdout
        assert row["problem"]["bias_dtype"] == "bf16" and row["problem"]["alibi"] is True
