"""torch.ops.ingot.* and ingot.torch with wrong arguments: no call reads or writes what is not its
own, and each says what is wrong."""

import ingot
import ingot.torch
import pytest
import torch
from bad_arguments import (
    CAUSAL,
    DROPOUT,
    FACTOR,
    POSITIVE_FACTOR,
    PRECISION,
    WINDOW,
    WORKSPACE_LIMIT,
    Function,
    Given,
    accepts,
    arrays,
    cases,
    parts,
    refuses,
    without,
)
from torch_cases import BLOCKS, KINDS, OPTIONS, each_kind, operands


def saved_of(kind):
    forward, _, blocks = KINDS[kind]
    q, k, v = operands()
    o, lse = forward(q, k, v, *blocks, *OPTIONS)
    return {"q": q, "k": k, "v": v, "o": o, "lse": lse, "dout": torch.randn_like(o)}


def shrunk(x):
    """x with a storage that ends before it does."""
    if x.storage_offset() == 0:
        x = x.clone()
    storage = x.untyped_storage()
    storage.resize_(storage.nbytes() - x.element_size())
    return x


WRONG = {
    "batch": lambda x: x[:1],
    "no batch": lambda x: x[:0],
    "heads": lambda x: x[:, :1].expand(-1, 3, *x.shape[2:]),
    "no heads": lambda x: x[:, :0],
    "length": lambda x: x[:, :, :-1],
    "longer": lambda x: torch.cat((x, x), 2),
    "last": lambda x: x[..., :-1],
    "rank": lambda x: x[0],
    "rank 0": lambda x: x.flatten()[0],
    "meta": lambda x: x.to("meta"),
    "int": lambda x: x.int(),
    "complex": lambda x: x.to(torch.complex64),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "sparse": lambda x: x.to_sparse(),
    "shrunk": shrunk,
    "shrunk, strided": lambda x: shrunk(torch.cat((x, x), -1)[..., x.shape[-1] :]),
    "no storage": lambda x: x.clone().set_(torch.UntypedStorage(0), 0, (0,)).reshape(-1)[:0],
}
# Lengths and heads that the other tensors need not share.
FREE = {("q", "length"), ("q", "longer"), ("q", "heads"), ("v", "last")}
# What makes another valid problem of a forward pass; k's or v's head counts that still fit.
IN_FORWARD = [
    (name, wrong) for name in ("q", "k", "v") for wrong in WRONG if (name, wrong) not in FREE
] + [("q", "heads")]


@each_kind
@pytest.mark.parametrize("name,wrong", IN_FORWARD)
def test_forward_refuses_each_wrong_tensor(kind, name, wrong):
    forward, _, blocks = KINDS[kind]
    given = dict(zip(("q", "k", "v"), operands(), strict=True))
    given[name] = WRONG[wrong](given[name])
    with pytest.raises((ingot.InvalidArgument, ingot.Unsupported)):
        forward(*given.values(), *blocks, *OPTIONS)
    if wrong not in ("meta", "sparse", "shrunk", "shrunk, strided", "no storage"):
        metas = [x.to("meta") for x in given.values()]
        with pytest.raises((ingot.InvalidArgument, ingot.Unsupported)):
            forward(*metas, *blocks, *OPTIONS)


IN_BACKWARD = [(name, wrong) for name in ("q", "k", "v", "o", "lse", "dout") for wrong in WRONG]


@each_kind
@pytest.mark.parametrize("name,wrong", IN_BACKWARD)
def test_backward_refuses_each_wrong_tensor(kind, name, wrong):
    _, backward, blocks = KINDS[kind]
    given = saved_of(kind)
    given[name] = WRONG[wrong](given[name])
    with pytest.raises((ingot.InvalidArgument, ingot.Unsupported)):
        backward(*given.values(), *blocks, *OPTIONS)
    if wrong not in ("meta", "sparse", "shrunk", "shrunk, strided", "no storage"):
        metas = [x.to("meta") for x in given.values()]
        with pytest.raises((ingot.InvalidArgument, ingot.Unsupported)):
            backward(*metas, *blocks, *OPTIONS)


BAD_BLOCKS = {
    "five": [0, 1, 0, 1, 0],
    "entries": [0, 4, 0, 1, 0, 1],
    "queries": [0, 1, 0, 5, 0, 1],
    "keys": [0, 1, 0, 1, 0, 7],
    "negative": [0, 1, -1, 1, 0, 1],
    "descending": [0, 1, 2, 1, 0, 1],
    "shared": [0, 1, 0, 2, 0, 2, 0, 1, 1, 3, 2, 4],
}


@pytest.mark.parametrize("blocks", BAD_BLOCKS.values(), ids=BAD_BLOCKS.keys())
def test_blocks_lie_within_the_tensors(blocks):
    forward, backward, _ = KINDS["ragged"]
    for device in ("cpu", "meta"):
        saved = [x.to(device) for x in saved_of("ragged").values()]
        with pytest.raises(ingot.InvalidArgument, match="blocks: "):
            forward(*saved[:3], blocks, *OPTIONS)
        with pytest.raises(ingot.InvalidArgument, match="blocks: "):
            backward(*saved, blocks, *OPTIONS)


@pytest.mark.parametrize("at", [3, 4], ids=["scale", "softcap"])
@pytest.mark.parametrize("factor", [1e-50, 2.0**-150, 1e-38, float("nan"), 2e37, 1e39])
@each_kind
def test_factors_that_are_too_small_or_too_large(kind, factor, at):
    forward, backward, blocks = KINDS[kind]
    options = [*OPTIONS]
    options[at] = factor
    saved = list(saved_of(kind).values())
    for operator, tensors in ((forward, saved[:3]), (backward, saved)):
        with pytest.raises(ingot.InvalidArgument, match="scale|softcap"):
            operator(*tensors, *blocks, *options)


def test_lazily_negated_tensors_are_resolved():
    saved = saved_of("plain")
    negated = {
        name: x if name == "lse" else torch.complex(x, -x).conj().imag for name, x in saved.items()
    }
    assert negated["q"].is_neg()
    forward, backward, _ = KINDS["plain"]
    names = ("q", "k", "v")
    want = forward(*(saved[n] for n in names), *OPTIONS)
    got = forward(*(negated[n] for n in names), *OPTIONS)
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(
        backward(*negated.values(), *OPTIONS), backward(*saved.values(), *OPTIONS), strict=True
    ):
        assert torch.equal(a, b)


def test_all_on_meta_gives_the_shapes():
    q, k, v = (x.to("meta") for x in operands())
    o, lse = ingot.torch.attention(q, k, v, return_lse=True)
    assert o.is_meta and o.shape == (3, 4, 4, 8) and lse.shape == (3, 4, 4)


def test_arguments_of_other_packages_say_what_is_not_there():
    q, k, v = operands()
    for name in ("score_mod", "block_mask"):
        with pytest.raises(ingot.Unsupported, match=f"{name}: must be left out"):
            ingot.torch.attention(q, k, v, **{name: None})
    for name, instead in (("dropout_p", "dropout"), ("attn_bias", "bias"), ("s_aux", "sinks")):
        with pytest.raises(ingot.InvalidArgument, match=f"{name}: must be one of .*; {instead} do"):
            ingot.torch.attention(q, k, v, **{name: None})
    for function, more in ((ingot.torch.attention, ()), (ingot.torch.ragged_attention, ([],))):
        with pytest.raises(ingot.InvalidArgument, match="^nothing: must be one of"):
            function(q.numpy(), k, v, *more, nothing=1)
    with pytest.raises(ingot.InvalidArgument, match="is_causal: must be one of"):
        ingot.torch.ragged_attention(q, k, v, BLOCKS, is_causal=True)


def like(x, dtype=None, shape=None):
    dtype = x.dtype if dtype is None else getattr(torch, dtype)
    return torch.ones(x.shape if shape is None else shape, dtype=dtype)


TENSOR = {
    **arrays(like),
    "NumPy": Given(lambda x: x.numpy()),
    "sparse": Given(lambda x: x.to_sparse()),
    "meta": Given(lambda x: x.to("meta")),
    "float8": Given(lambda x: x.to(torch.float8_e4m3fn)),
    "shrunk": Given(shrunk),
}
ALL_FIT = {"q": "", "k": "", "v": ""}  # which one is wrong is a matter of view
NAMED = {
    "q": without(TENSOR, "more seqlen", "more heads", "meta"),
    "k": without(TENSOR, "more seqlen"),
    "v": without(TENSOR, "more head_dim"),
    "causal": CAUSAL,
    "window": WINDOW,
    "scale": FACTOR,
    "softcap": POSITIVE_FACTOR,
    "precision": PRECISION,
    "workspace_limit": WORKSPACE_LIMIT,
}
NOT_BLOCKS = {
    "None": None,
    "tensor": torch.tensor([0, 1, 0, 3, 0, 5]),
    "floats": [0, 1, 0, 3.0, 0, 5],
    "texts": ["0"] * 6,
    "bool": [False, True, 0, 3, 0, 5],
    "nested": [[0, 1, 0, 3, 0, 5]],
    "2**70": [0, 1, 0, 2**70, 0, 5],
    **BAD_BLOCKS,
}


def parts_of_operands():
    """The good parts of operands()."""
    return {
        "mask": torch.ones(3, 4, 4, 6) > 0,
        "bias": torch.ones(4, 4, 6),
        "alibi_slopes": torch.ones(4),
        "sinks": torch.ones(4),
        "prefix_len": torch.ones(3, dtype=torch.int32),
        "dropout": 0.5,
        "seed": 1,
    }


PARTS = parts(like)
for wrong in ("mask", "bias", "alibi_slopes", "sinks", "prefix_len"):
    PARTS[wrong] |= {
        "NumPy": Given(lambda x: x.numpy()),
        "meta": Given(lambda x: x.to("meta")),
        "sparse": Given(lambda x: x.to_sparse()),
    }
PARTS["alibi_slopes"]["requires gradients"] = Given(lambda x: x.clone().requires_grad_())
PARTS["seed"] |= {
    "one in a tensor": torch.tensor([1]),
    "int32": torch.tensor([1, 2], dtype=torch.int32),
    "floats": torch.ones(2),
    "meta": torch.ones(2, dtype=torch.int64, device="meta"),
}


def named(*blocks):
    given = dict(zip(("q", "k", "v"), operands(), strict=True))
    more = {"blocks": blocks[0]} if blocks else parts_of_operands()
    return {**dict.fromkeys(NAMED), **given, **more}


SDPA = {
    "query": without(TENSOR, "more seqlen", "more heads", "rank less", "rank more", "meta"),
    "key": without(TENSOR, "more seqlen", "rank less", "rank more"),
    "value": without(TENSOR, "more head_dim", "rank less", "rank more"),
    "attn_mask": {
        "text": "causal",
        "number": 1,
        "NumPy": torch.ones(4, 6).numpy(),
        "longer": torch.ones(4, 7),
        "of more entries": torch.ones(6, 4, 4, 6),
        "rank 5": torch.ones(1, 1, 1, 4, 6),
        "float64": torch.ones(4, 6).double(),
        "int32": torch.ones(4, 6).int(),
        "sparse": torch.ones(4, 6).to_sparse(),
        "meta": torch.ones(4, 6, device="meta"),
    },
    "dropout_p": DROPOUT,
    "scale": FACTOR,
    "fallback": {"bool": True, "text": "flash", "number": 1, "list": []},
}
FUNCTIONS = [
    Function(
        ingot.torch.attention,
        good=named,
        wrong={**NAMED, **PARTS},
        called=ALL_FIT,
        unchecked=("return_lse",),
    ),
    Function(
        ingot.torch.ragged_attention,
        good=lambda: named(BLOCKS),
        wrong={**NAMED, "blocks": NOT_BLOCKS},
        called=ALL_FIT,
        unchecked=("return_lse",),
    ),
    Function(
        ingot.torch.scaled_dot_product_attention,
        good=lambda: dict(
            zip(("query", "key", "value", "enable_gqa"), (*operands(), True), strict=True)
        ),
        wrong=SDPA,
        called={"query": "", "key": "", "value": ""},
        unchecked=("is_causal", "enable_gqa"),
    ),
    Function(
        lambda fallback: ingot.torch.sdpa(fallback).__enter__(),
        good=lambda: {"fallback": "torch"},
        wrong={"fallback": SDPA["fallback"]},
        name="sdpa",
    ),
    Function(
        ingot.torch.register_flash_attention,
        good=lambda: {"fallback": "torch"},
        wrong={"fallback": SDPA["fallback"]},
    ),
]


@pytest.mark.parametrize("function,argument,value", cases(FUNCTIONS))
def test_wrong_arguments(function, argument, value):
    refuses(function, argument, value)


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f.name != "sdpa"], ids=str)
def test_right_arguments(function):
    accepts(function)
