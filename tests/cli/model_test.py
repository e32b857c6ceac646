"""ingot model: modelled speed on Apple chips; the figures themselves are tests/model_test.cpp's."""

import json

import pytest

CHIPS = ["m1", "m1-pro", "m1-max", "m1-ultra", "m2", "m2-pro", "m2-max", "m3", "m3-pro", "m3-max"]
CHIPS += ["m4", "m4-pro", "m4-max", "m5", "m5-max"]


@pytest.mark.parametrize("chip", CHIPS)
def test_every_chip(ingot, chip):
    done = ingot("model", "--chip", chip, "--head-dim", 128)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"modelled, not measured: {chip}, ")
    assert sum(line.startswith("metal-flash-attention ") for line in lines) == 3
    assert sum(line.startswith("ingot ") for line in lines) == 3


def test_json(ingot):
    shape = ["--head-dim", 64, 80, "--dtype", "bf16", "--pass", "dkv", "--seqlen", 2048]
    done = ingot("model", "--chip", "m3-max", *shape, "--heads", 8, "--heads-kv", 2, "--json")
    result = json.loads(done.stdout)
    assert result["modelled"] is True and result["chip"] == "m3-max"
    assert [row["head_dim"] for row in result["rows"]] == [64, 64, 80, 80]
    for row in result["rows"]:
        assert row["pass"] == "dkv"
        assert row["clocks_per_tile"] >= row["issue_clocks"] > 0
        assert 0 < row["utilisation"] < 1 and 0 < row["fill"] <= 1
        assert row["modelled_ms"] > 0


def test_a_causal_mask_takes_less_time(ingot):
    def milliseconds(causal):
        shape = ["--chip", "m4", "--head-dim", 128, "--pass", "forward", "--causal", causal]
        rows = json.loads(ingot("model", *shape, "--json").stdout)["rows"]
        return next(r["modelled_ms"] for r in rows if r["shape"].startswith("ingot"))

    assert milliseconds("top_left") < 0.55 * milliseconds("none")


def test_published_figures_with_the_error_beside_each(ingot):
    text = ingot("model", "--published").stdout
    assert "mean absolute error, the 19 points of the fit: 3." in text
    rows = json.loads(ingot("model", "--published", "--json").stdout)["rows"]
    assert len(rows) == 87

    def mean_error(fit, chip, key="error_points"):
        errors = [abs(r[key]) for r in rows if r["fit"] == fit and r["chip"] == chip]
        return len(errors), sum(errors) / len(errors)

    count, error = mean_error("overlap", "m1-max")
    assert count == 19 and 2.5 < error < 3.5
    count, error = mean_error("none", "m4")
    assert count == 12 and error < 2 < mean_error("none", "m4", "plain_error_points")[1]


@pytest.mark.parametrize(
    "chip, says",
    [
        ("m1-max", ["m1-max: "]),
        ("m4", ["m4: "]),
        ("m3-max", ["none is published of m3-max", "m1-max: ", "m4: "]),
    ],
)
def test_errors_are_printed_with_every_chip(ingot, chip, says):
    text = ingot("model", "--chip", chip).stdout
    errors = text[text.index("mean absolute error of the model") :]
    assert all(words in errors for words in says)
    assert ("m4: " in errors) == (chip != "m1-max")


def test_a_published_figure_stands_beside_its_row(ingot):
    shape = ["--chip", "m4", "--pass", "forward", "--head-dim", 128, "--dtype", "f16"]
    row = ingot("model", *shape).stdout.splitlines()[2]
    assert row.startswith("metal-flash-attention 16x128x32") and " 82.3 " in row


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "--chip: must be given"),
        (["--chip", "m9"], "--chip: must be one of m1, m1-pro"),
        (["--chip", "m1", "--pass", "backward"], "--pass"),
        (["--chip", "m1", "--head-dim", 1025], "--head-dim"),
        (["--chip", "m1", "--dtype", "f8"], "f8"),
        (["--chip", "m1", "--heads", 8, "--heads-kv", 3], "num_heads"),
    ],
    ids=str,
)
def test_errors(ingot, arguments, says):
    code = 1 if "--heads-kv" in arguments else 2
    done = ingot("model", *arguments, code=code)
    assert says in done.stderr and done.stdout == ""


def test_a_chip_that_is_not_there_cannot_run(ingot, tmp_path, rng):
    import numpy

    for name in "qkv":
        numpy.save(tmp_path / f"{name}.npy", rng.standard_normal((2, 5, 4)).astype("float32"))
    operands = ["--q", "q.npy", "--k", "k.npy", "--v", "v.npy", "--o", "o.npy"]
    done = ingot("run", *operands, "--device", "metal:m1-max", code=1)
    assert "unsupported: device metal:m1-max is a chip to plan for" in done.stderr
    assert "metal/kernels/forward.metal" in (
        ingot("explain", "--seqlen-q", 100, "--head-dim", 64, "--device", "metal:m1-max").stdout
    )
