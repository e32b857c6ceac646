"""ingot run: results against NumPy for every way arrays can be given."""

import json

import numpy
import pytest
from attention import attention, from_bf16, read_safetensors, safetensors_bytes, to_bf16

# Errors of results of unit size: rounding of the inputs' dtype, with some room for sums.
TOLERANCE = {"float16": 4e-3, "float32": 2e-5, "float64": 2e-5}


def tensors(rng, shape_q, shape_kv, dtype="float32"):
    return {
        "q": rng.standard_normal(shape_q).astype(dtype),
        "k": rng.standard_normal(shape_kv).astype(dtype),
        "v": rng.standard_normal(shape_kv).astype(dtype),
        "dout": rng.standard_normal(shape_q).astype(dtype),
    }


def run(ingot, folder, inputs, outputs, *options):
    """Writes inputs, runs, reads outputs."""
    arguments = []
    for name, array in inputs.items():
        numpy.save(folder / f"{name}.npy", array)
        arguments += [f"--{name}", f"{name}.npy"]
    for name in outputs:
        arguments += [f"--{name}", f"{name}.npy"]
    done = ingot("run", *arguments, *options)
    return done, {name: numpy.load(folder / f"{name}.npy") for name in outputs}


def forward(inputs):
    return {name: array for name, array in inputs.items() if name != "dout"}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_forward_and_backward(ingot, tmp_path, rng, dtype, order):
    inputs = tensors(rng, (2, 4, 37, 16), (2, 2, 53, 16), dtype)
    stored = {name: numpy.asarray(x, order=order) for name, x in inputs.items()}
    done, got = run(ingot, tmp_path, stored, ["o", "lse", "dq", "dk", "dv"])
    want = attention(**inputs)
    for name, array in got.items():
        # The device in use says which dtype f64 inputs give.
        assert array.dtype.name in (
            {dtype, "float32"} if dtype == "float64" or name == "lse" else {dtype}
        )
        numpy.testing.assert_allclose(
            array, want[name], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], err_msg=name
        )
    assert ("note: q, k, v, dout converted from f64 to f32" in done.stderr) == (
        got["o"].dtype.name != dtype
    )


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_ranks_and_layouts(ingot, tmp_path, rng, rank, layout):
    heads = 1 if rank == 2 else 3
    batch = 2 if rank == 4 else 1
    inputs = tensors(rng, (batch, heads, 21, 8), (batch, heads, 21, 8))
    want = attention(**inputs)

    def stored(x):
        x = x.swapaxes(1, 2) if layout == "bshd" and rank > 2 else x
        return numpy.ascontiguousarray(x[(0,) * (4 - rank)])

    names = ["o", "lse", "dq", "dk", "dv"]
    _, got = run(
        ingot, tmp_path, {n: stored(x) for n, x in inputs.items()}, names, "--layout", layout
    )
    for name in names:
        expected = want["lse"][(0,) * (4 - rank)] if name == "lse" else stored(want[name])
        assert got[name].shape == expected.shape
        numpy.testing.assert_allclose(got[name], expected, rtol=2e-5, atol=2e-5, err_msg=name)


VARIANTS = [
    {"causal": "top_left"},
    {"causal": "bottom_right"},
    {"window": (3, 2)},
    {"window": (-1, 4)},
    {"causal": "bottom_right", "window": (5, -1)},
    {"scale": 0.3},
    {"scale": -0.3},
    {"softcap": 2.0},
    {"precision": "high"},
    {"causal": "top_left", "window": (4, 0), "scale": 0.2, "softcap": 1.5},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
@pytest.mark.parametrize("lengths", [(19, 30), (30, 19)])
def test_variants(ingot, tmp_path, rng, variant, lengths):
    rows, cols = lengths
    inputs = tensors(rng, (1, 2, rows, 8), (1, 1, cols, 8))
    options = []
    for name, value in variant.items():
        text = ",".join(map(str, value)) if name == "window" else str(value)
        options += [f"--{name}", text]
    _, got = run(ingot, tmp_path, inputs, ["o", "lse", "dq", "dk", "dv"], *options)
    want = attention(**inputs, **variant)
    for name, array in got.items():
        numpy.testing.assert_allclose(array, want[name], rtol=2e-5, atol=2e-5, err_msg=name)


def test_f64_is_exact_on_the_reference(ingot, tmp_path, rng):
    inputs = tensors(rng, (1, 2, 20, 16), (1, 2, 20, 16), "float64")  # scale 1/4 is exact in f32
    done, got = run(ingot, tmp_path, inputs, ["o", "dq"], "--device", "reference")
    want = attention(**inputs)
    assert got["o"].dtype == numpy.float64 and done.stderr == ""
    numpy.testing.assert_allclose(got["o"], want["o"], rtol=1e-13, atol=1e-14)
    numpy.testing.assert_allclose(got["dq"], want["dq"], rtol=1e-12, atol=1e-13)


def test_every_device_agrees(ingot, tmp_path, rng, devices):
    inputs = tensors(rng, (1, 2, 70, 40), (1, 2, 70, 40))
    want = attention(**inputs)
    for device in devices:
        _, got = run(ingot, tmp_path, inputs, ["o", "dk"], "--device", device)
        for name, array in got.items():
            numpy.testing.assert_allclose(array, want[name], rtol=2e-5, atol=2e-5, err_msg=device)


def test_value_width_differs(ingot, tmp_path, rng):
    inputs = forward(tensors(rng, (1, 2, 9, 24), (1, 2, 9, 24)))
    inputs["v"] = inputs["v"][..., :10]
    _, got = run(ingot, tmp_path, inputs, ["o"])
    numpy.testing.assert_allclose(got["o"], attention(**inputs)["o"], rtol=2e-5, atol=2e-5)


def test_no_keys_and_no_rows(ingot, tmp_path, rng):
    inputs = forward(tensors(rng, (1, 1, 3, 4), (1, 1, 0, 4)))
    _, got = run(ingot, tmp_path, inputs, ["o", "lse"])
    assert (got["o"] == 0).all() and (got["lse"] == -numpy.inf).all()
    inputs = forward(tensors(rng, (1, 1, 0, 4), (1, 1, 3, 4)))
    _, got = run(ingot, tmp_path, inputs, ["o", "lse"])
    assert got["o"].shape == (1, 1, 0, 4) and got["lse"].shape == (1, 1, 0)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_versions(ingot, tmp_path, rng, version):
    inputs = forward(tensors(rng, (5, 4), (6, 4)))
    for name, array in inputs.items():
        with open(tmp_path / f"{name}.npy", "wb") as file:
            numpy.lib.format.write_array(file, array, version=version)
    ingot("run", "--q", "q.npy", "--k", "k.npy", "--v", "v.npy", "--o", "o.npy")
    want = attention(*(inputs[n][None, None] for n in "qkv"))["o"][0, 0]
    numpy.testing.assert_allclose(numpy.load(tmp_path / "o.npy"), want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["bf16", "float16", "float32"])
def test_safetensors(ingot, tmp_path, rng, dtype):
    inputs = tensors(rng, (2, 4, 18, 16), (2, 2, 25, 16), "float32" if dtype == "bf16" else dtype)
    stored = {n: to_bf16(x) for n, x in inputs.items()} if dtype == "bf16" else inputs
    seen = {n: from_bf16(x) for n, x in stored.items()} if dtype == "bf16" else inputs
    data = safetensors_bytes({**stored, "ids": numpy.arange(3)}, {"text": "naïve"})
    (tmp_path / "in.safetensors").write_bytes(data)
    ingot("run", "--in", "in.safetensors", "--out", "out.safetensors")
    got, want = read_safetensors(tmp_path / "out.safetensors"), attention(**seen)
    assert sorted(got) == ["dk", "dq", "dv", "lse", "o"]
    tolerance = 3e-2 if dtype == "bf16" else TOLERANCE[dtype]
    for name, array in got.items():
        numpy.testing.assert_allclose(
            array, want[name], rtol=tolerance, atol=tolerance, err_msg=name
        )


def test_safetensors_without_dout(ingot, tmp_path, rng):
    inputs = forward(tensors(rng, (3, 18, 16), (1, 25, 16), "float16"))
    (tmp_path / "x").write_bytes(safetensors_bytes(inputs))
    ingot("run", "--in", "x", "--out", "y", "--out-dtype", "f32")
    got = read_safetensors(tmp_path / "y")
    assert sorted(got) == ["lse", "o"]
    assert got["o"].dtype == numpy.float32 and got["lse"].shape == (3, 18)
    want = attention(*(inputs[n][None] for n in "qkv"))["o"][0]
    numpy.testing.assert_allclose(got["o"], want, rtol=2e-5, atol=2e-5)


def test_out_dtype(ingot, tmp_path, rng):
    inputs = tensors(rng, (1, 1, 9, 8), (1, 1, 9, 8), "float16")
    _, got = run(ingot, tmp_path, inputs, ["o", "dv"], "--out-dtype", "f32")
    want = attention(**inputs)
    for name, array in got.items():
        assert array.dtype == numpy.float32
        numpy.testing.assert_allclose(array, want[name], rtol=2e-5, atol=2e-5)


def test_same_bits_for_any_thread_count(ingot, tmp_path, rng):
    inputs = tensors(rng, (2, 3, 130, 32), (2, 3, 130, 32))
    _, one = run(ingot, tmp_path, inputs, ["o", "dq", "dk"], "--threads", "1")
    _, three = run(ingot, tmp_path, inputs, ["o", "dq", "dk"], "--threads", "3")
    for name, array in one.items():
        assert array.tobytes() == three[name].tobytes()


def test_json_summary(ingot, tmp_path, rng, devices):
    inputs = tensors(rng, (2, 4, 9, 8), (2, 2, 11, 8))
    done, _ = run(
        ingot,
        tmp_path,
        inputs,
        ["o", "dk"],
        "--json",
        "--causal",
        "bottom_right",
        "--window",
        "4,-1",
    )
    summary = json.loads(done.stdout)
    assert summary["device"] == devices[0]
    assert summary["problem"]["num_heads_kv"] == 2 and summary["problem"]["seqlen_k"] == 11
    assert summary["problem"]["causal"] == "bottom_right" and summary["problem"]["window"] == [
        4,
        -1,
    ]
    assert summary["time_ms"]["forward"] > 0 and summary["time_ms"]["backward"] > 0
    assert summary["outputs"]["dk"] == {"path": "dk.npy", "dtype": "f32", "shape": [2, 2, 11, 8]}
    assert set(summary["outputs"]) == {"o", "dk"}


def test_text_summary(ingot, tmp_path, rng):
    done, _ = run(ingot, tmp_path, forward(tensors(rng, (7, 8), (5, 8))), ["o"])
    assert "forward" in done.stdout and "o: f32 [7, 8] -> o.npy" in done.stdout


def test_existing_output_keeps_its_permissions(ingot, tmp_path, rng):
    (tmp_path / "o.npy").write_bytes(b"old")
    (tmp_path / "o.npy").chmod(0o640)
    run(ingot, tmp_path, forward(tensors(rng, (7, 8), (5, 8))), ["o"])
    assert (tmp_path / "o.npy").stat().st_mode & 0o777 == 0o640


def test_output_through_a_symbolic_link(ingot, tmp_path, rng):
    (tmp_path / "real.npy").write_bytes(b"old")
    (tmp_path / "o.npy").symlink_to("real.npy")
    run(ingot, tmp_path, forward(tensors(rng, (7, 8), (5, 8))), ["o"])
    assert (tmp_path / "o.npy").is_symlink()
    assert numpy.load(tmp_path / "real.npy").shape == (7, 8)
