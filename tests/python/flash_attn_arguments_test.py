"""Each argument of ingot.compat.flash_attn's functions, wrong in each way."""

import pytest
import torch
from bad_arguments import (
    DROPOUT,
    FACTOR,
    INTEGER,
    NO_VALUE,
    WINDOW,
    Function,
    Given,
    accepts,
    arrays,
    cases,
    refuses,
    without,
)
from ingot.compat.flash_attn import (
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
    flash_attn_with_kvcache,
)


def like(x, dtype=None, shape=None):
    dtype = x.dtype if dtype is None else getattr(torch, dtype)
    return torch.ones(x.shape if shape is None else shape, dtype=dtype)


TENSOR = {
    **arrays(like),
    "NumPy": Given(lambda x: x.numpy()),
    "sparse": Given(lambda x: x.to_sparse()),
    "meta": Given(lambda x: x.to("meta")),
}
TOTAL = {**TENSOR, **arrays(like, rank=3)}  # its axes are total, heads and head_dim
TOTAL = without(TOTAL, "more head_dim")
TOTAL_OF_Q = without(TOTAL, "more batch", "more heads", "meta")
PACKED = without(TENSOR, "meta", "more batch", "more heads", "more seqlen", "more head_dim")
ENDS = {
    "None": None,
    "list": [0, 6],
    "rank 0": torch.tensor(0),
    "rank 2": torch.tensor([[0, 6]]),
    "float": torch.tensor([0.0, 6.0]),
    "bool": torch.tensor([False, True]),
    "meta": torch.tensor([0, 6]).to("meta"),
    "empty": torch.tensor([], dtype=torch.int32),
    "not from 0": torch.tensor([1, 6]),
    "descending": torch.tensor([0, 5, 3]),
    "negative": torch.tensor([0, -1]),
    "beyond": torch.tensor([0, 9]),
    "more": torch.tensor([0, 2, 3, 4]),
}
LONGEST = {**without(INTEGER, "2**70"), "short": 2, "float tensor": torch.tensor(6.0)}
NOT_THERE = {"tensor": torch.ones(4), "number": 3, "text": "x"}
COMMON = {
    "dropout_p": {**DROPOUT, "tensor": torch.ones(2)},
    "softmax_scale": FACTOR,
    "causal": {"text": "bottom_right", "number": 1, "None": None, **NO_VALUE},
    "window_size": WINDOW,
    "softcap": {**without(FACTOR, "zero"), "negative": -1.0},
    "alibi_slopes": {
        **NO_VALUE,
        "number": 3,
        "text": "x",
        "NumPy": torch.ones(4).numpy(),
        "one more": torch.ones(5),
        "of more entries": torch.ones(3, 4),
        "rank 0": torch.tensor(1.0),
        "rank 3": torch.ones(1, 2, 4),
        "float16": torch.ones(4).half(),
        "int64": torch.ones(4).long(),
        "meta": torch.ones(4, device="meta"),
        "sparse": torch.ones(4).to_sparse(),
        "requires gradients": torch.ones(4, requires_grad=True),
    },
}
CALLED = {
    **dict.fromkeys(("q", "k", "v", "k_cache", "v_cache"), ""),  # which is wrong depends
    "kv": "",
    "qkv": "",
    "softmax_scale": "scale",
    "window_size": "window",
}
UNCHECKED = ("deterministic", "return_attn_probs")


def function(call, operands, wrong, more=None, unchecked=UNCHECKED):
    """operands: {name: shape}, of which the call takes tensors; more: other arguments of it."""

    def good():
        made = {name: torch.randn(shape) for name, shape in operands.items()}
        return {**made, **(more or {})}

    return Function(call, good=good, wrong=wrong, called=CALLED, unchecked=unchecked)


def varlen(**more):
    return {
        **{f"cu_seqlens_{of}": torch.tensor([0, 2, 6]) for of in "qk"},
        **{f"max_seqlen_{of}": 4 for of in "qk"},
        **more,
    }


VARLEN = {
    "cu_seqlens_q": ENDS,
    "cu_seqlens_k": ENDS,
    "max_seqlen_q": LONGEST,
    "max_seqlen_k": LONGEST,
    **COMMON,
}
Q, KV = (2, 6, 4, 8), (2, 6, 2, 8)
OF_Q = without(TENSOR, "more heads", "more seqlen", "meta")
OF_K = without(TENSOR, "more seqlen")
LENGTHS = {
    "text": "3",
    "bool": True,
    "half": 1.5,
    "list": [1, 2],
    "negative": -1,
    "beyond": 7,
    "rank 0": torch.tensor(1),
    "too many": torch.tensor([1, 2, 3]),
    "one negative": torch.tensor([-1, 3]),
    "one beyond": torch.tensor([3, 7]),
    "float": torch.tensor([1.0, 2.0]),
    "meta": torch.tensor([1, 2]).to("meta"),
}
FUNCTIONS = [
    function(
        flash_attn_func,
        {"q": Q, "k": KV, "v": KV},
        {"q": OF_Q, "k": OF_K, "v": without(TENSOR, "more head_dim"), **COMMON},
    ),
    function(flash_attn_qkvpacked_func, {"qkv": (2, 6, 3, 4, 8)}, {"qkv": PACKED, **COMMON}),
    function(
        flash_attn_kvpacked_func,
        {"q": Q, "kv": (2, 6, 2, 2, 8)},
        {"q": OF_Q, "kv": {**PACKED, "meta": TENSOR["meta"]}, **COMMON},
    ),
    function(
        flash_attn_varlen_func,
        {"q": (6, 4, 8), "k": (6, 2, 8), "v": (6, 2, 8)},
        {
            "q": TOTAL_OF_Q,
            "k": TOTAL,
            "v": without(TOTAL, "more seqlen"),
            **VARLEN,
            "block_table": NOT_THERE,
        },
        varlen(),
    ),
    function(
        flash_attn_varlen_qkvpacked_func,
        {"qkv": (6, 3, 4, 8)},
        {"qkv": PACKED, "cu_seqlens": without(ENDS, "more"), "max_seqlen": LONGEST, **COMMON},
        {"cu_seqlens": torch.tensor([0, 2, 6]), "max_seqlen": 4},
    ),
    function(
        flash_attn_varlen_kvpacked_func,
        {"q": (6, 4, 8), "kv": (6, 2, 2, 8)},
        {"q": TOTAL_OF_Q, "kv": {**PACKED, "meta": TENSOR["meta"]}, **VARLEN},
        varlen(),
    ),
    function(
        flash_attn_with_kvcache,
        {"q": (2, 1, 4, 8), "k_cache": KV, "v_cache": KV, "k": (2, 1, 2, 8), "v": (2, 1, 2, 8)},
        {
            "q": OF_Q,
            "k_cache": OF_K,
            "v_cache": TENSOR,
            "k": TENSOR,
            "v": TENSOR,
            "rotary_cos": NOT_THERE,
            "rotary_sin": NOT_THERE,
            "cache_seqlens": LENGTHS,
            "cache_batch_idx": {
                "number": 0,
                "list": [0, 1],
                "one": torch.tensor([0]),
                "beyond": torch.tensor([0, 2]),
                "negative": torch.tensor([0, -1]),
                "twice": torch.tensor([1, 1]),
                "float": torch.tensor([0.0, 1.0]),
                "meta": torch.tensor([0, 1]).to("meta"),
            },
            "cache_leftpad": NOT_THERE,
            "block_table": NOT_THERE,
            **without(COMMON, "dropout_p", "alibi_slopes"),
            "alibi_slopes": without(COMMON["alibi_slopes"], "requires gradients"),
        },
        {"cache_seqlens": 3},
        ("rotary_interleaved", "num_splits", "return_softmax_lse"),
    ),
]


@pytest.mark.parametrize("function,argument,value", cases(FUNCTIONS))
def test_wrong_arguments(function, argument, value):
    refuses(function, argument, value)


@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_right_arguments(function):
    accepts(function)
