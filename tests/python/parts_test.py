"""ALiBi, bias, mask, prefix, sinks and dropout through ingot.attention and its gradient: alone, in
pairs and all together they equal the textbook."""

import itertools

import ingot
import numpy as np
import pytest
from plain_parts import attention, keep, philox

DEVICES = ["reference", "cpu"]
each_device = pytest.mark.parametrize("device", DEVICES)
BATCH, HEADS, QUERIES, KEYS = 2, 4, 19, 37
RNG = np.random.default_rng(3)


def normal(*shape):
    return RNG.standard_normal(shape).astype("float32")


SEEN = RNG.random((BATCH, 1, QUERIES, KEYS)) < 0.7
SEEN[:, :, 4] = False
PARTS = {
    "causal": {"causal": "bottom_right"},
    "softcap": {"softcap": 2.0},
    "alibi": {"alibi_slopes": np.float32([0.5, 0.25, 0.1, 0.01])},
    "bias": {"bias": normal(HEADS, QUERIES, KEYS)},
    "mask": {"mask": SEEN},
    "sinks": {"sinks": normal(HEADS)},
    "dropout": {"dropout": 0.3, "seed": (2**63 + 11, 2**40 + 5)},
    "prefix": {"prefix_len": np.int32([3, 30]), "causal": "top_left"},
}
PAIRS = [("all", tuple(PARTS))]
PAIRS += [(name, (name,)) for name in PARTS]
PAIRS += [("-".join(pair), pair) for pair in itertools.combinations(PARTS, 2)]


def operands():
    rng = np.random.default_rng(4)
    shapes = ((BATCH, HEADS, QUERIES, 16), (BATCH, 2, KEYS, 16), (BATCH, 2, KEYS, 8))
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


def near(got, want, name):
    scale = max(1.0, np.abs(want[np.isfinite(want)]).max(initial=0.0))
    np.testing.assert_allclose(
        got.astype(np.float64), want, rtol=0, atol=1e-5 * scale, err_msg=name
    )


@each_device
@pytest.mark.parametrize("names", [names for _, names in PAIRS], ids=[name for name, _ in PAIRS])
def test_parts_equal_the_textbook(names, device):
    q, k, v = operands()
    options = {}
    for name in names:
        options |= PARTS[name]
    o, lse = ingot.attention(q, k, v, **options, return_lse=True, device=device)
    want, want_lse = attention(q, k, v, **options)
    near(o, want, "o")
    near(lse, want_lse, "lse")
    dout = np.random.default_rng(5).standard_normal(o.shape).astype("float32")
    wanted = {f"{x}_grad": x in options for x in ("bias", "sinks")}
    got = ingot.attention_backward(q, k, v, o, lse, dout, **options, **wanted, device=device)
    gradients = attention(q, k, v, dout, **options)
    assert len(got) == len(gradients)
    for x, (name, want) in zip(got, gradients.items(), strict=True):
        assert x.shape == want.shape
        near(x, want, f"d{name}")


SHAPES = [
    (BATCH, HEADS, QUERIES, KEYS),
    (1, HEADS, QUERIES, KEYS),
    (BATCH, 1, QUERIES, 1),
    (HEADS, 1, KEYS),
    (QUERIES, KEYS),
    (1, KEYS),
    (1, 1, 1, 1),
]


@each_device
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_masks_and_biases_broadcast_and_dbias_has_the_shape_of_bias(shape, device):
    q, k, v = operands()
    bias, mask = normal(*shape), RNG.random(shape) < 0.8
    options = {"bias": bias, "mask": mask}
    o, lse = ingot.attention(q, k, v, **options, return_lse=True, device=device)
    near(o, attention(q, k, v, **options)[0], "o")
    *_, dbias = ingot.attention_backward(
        q, k, v, o, lse, o, **options, bias_grad=True, device=device
    )
    assert dbias.shape == shape
    near(dbias, attention(q, k, v, o, **options)["bias"], "dbias")


def strided(x):
    """The same numbers in memory of another order, with gaps, backwards."""
    wide = np.zeros((*(2 * n for n in x.shape[::-1]),), x.dtype)
    view = wide[tuple(slice(None, None, -2) for _ in x.shape)].transpose()
    view[...] = x
    return view


@each_device
def test_parts_may_have_any_strides(device):
    q, k, v = operands()
    options = {
        "bias": normal(BATCH, HEADS, QUERIES, KEYS),
        "mask": np.broadcast_to(SEEN, (BATCH, HEADS, QUERIES, KEYS)),
        "alibi_slopes": normal(BATCH, HEADS),
        "sinks": normal(HEADS),
        "prefix_len": np.int32([3, 30]),
    }
    want = ingot.attention(q, k, v, **options, device=device)
    backwards = {name: strided(x) for name, x in options.items()}
    assert not any(x.flags.c_contiguous for x in backwards.values())
    assert np.array_equal(ingot.attention(q, k, v, **backwards, device=device), want)


@each_device
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_bias_and_sinks_of_16_bits(dtype, device):
    dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(getattr(dtypes, dtype, dtype))
    q, k, v = (x.astype(dtype) for x in operands())
    options = {"bias": normal(QUERIES, KEYS).astype(dtype), "sinks": normal(HEADS).astype(dtype)}
    o, lse = ingot.attention(q, k, v, **options, return_lse=True, device=device)
    *_, dbias, dsinks = ingot.attention_backward(
        q, k, v, o, lse, o, **options, bias_grad=True, sinks_grad=True, device=device
    )
    assert (o.dtype, dbias.dtype, dsinks.dtype) == (dtype,) * 3
    want = attention(q, k, v, o.astype(np.float64), **options)
    for got, of in ((dbias, "bias"), (dsinks, "sinks")):
        far = np.abs(got.astype(np.float64) - want[of]).max()
        assert far < 0.02 * np.abs(want[of]).max()


@each_device
def test_minus_infinity_in_a_bias_hides_as_a_mask_does(device):
    q, k, v = operands()
    bias = np.where(SEEN, np.float32(0), np.float32(-np.inf))
    got = ingot.attention(q, k, v, bias=bias, return_lse=True, device=device)
    want = ingot.attention(q, k, v, mask=SEEN, return_lse=True, device=device)
    for x, y in zip(got, want, strict=True):
        near(x, y.astype(np.float64), "o and lse")


def test_philox_gives_the_numbers_of_its_authors():
    """Known answers of Random123, kat_vectors."""
    ones = 0xFFFFFFFF
    known = [
        ([0, 0, 0, 0], 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ones] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ]
    for counter, key, want in known:
        assert philox(np.array(counter), key).tolist() == want


@each_device
def test_dropout_takes_the_weights_that_seed_and_offset_say(device):
    """With one-hot rows of v, o is the weights themselves."""
    n = 40
    q = np.zeros((2, 3, n, 4), "float32")
    v = np.broadcast_to(np.eye(n, dtype="float32"), (2, 3, n, n))
    for seed in (0, 5, (5, 1), (5, 2**32), (2**64 - 1, 2**64 - 1)):
        o = ingot.attention(q, q, v, dropout=0.4, seed=seed, device=device)
        assert np.array_equal(o != 0, keep((2, 3, n, n), 0.4, seed) != 0)


@each_device
def test_an_attention_without_pairs_has_parts_too(device):
    q = np.ones((2, 4, 3, 8), "float32")
    k = np.ones((2, 4, 0, 8), "float32")
    o, lse = ingot.attention(
        q,
        k,
        k,
        mask=np.ones((3, 0), bool),
        bias=np.ones((3, 0), "float32"),
        sinks=np.float32([1, 2, 3, 4]),
        return_lse=True,
        device=device,
    )
    assert not o.any()
    near(lse, np.broadcast_to(np.float64([1, 2, 3, 4])[:, None], (2, 4, 3)), "lse")
