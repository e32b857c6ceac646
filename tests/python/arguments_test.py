"""Each argument of each public function of ingot, wrong in each way: an ingot error in one line."""

import ingot
import numpy as np
import pytest
from bad_arguments import (
    CAUSAL,
    FACTOR,
    GRADIENT,
    INTEGER,
    NOT_A_TEXT,
    POSITIVE_FACTOR,
    PRECISION,
    SIZE,
    WINDOW,
    WORKSPACE_LIMIT,
    Function,
    accepts,
    arrays,
    cases,
    good_parts,
    parts,
    refuses,
    without,
)


def make(array, dtype=None, shape=None):
    return np.ones(array.shape if shape is None else shape, dtype or array.dtype)


def inputs():
    q = np.ones((2, 2, 5, 8), "float32")
    return {"q": q, "k": q.copy(), "v": q.copy(), **good_parts(make)}


def saved():
    x = inputs()
    o, lse = ingot.attention(**x, return_lse=True)
    more = {"bias_grad": True, "sinks_grad": True}
    return x | {"o": o, "lse": lse, "dout": o.copy(), **more}


OPTIONS = {
    "causal": CAUSAL,
    "window": WINDOW,
    "scale": FACTOR,
    "softcap": POSITIVE_FACTOR,
    "precision": PRECISION,
    "workspace_limit": WORKSPACE_LIMIT,
    "device": {"unknown": "tpu", "empty": "cpu:", "NUL": "cpu\0", **NOT_A_TEXT},
}
# k sets heads_kv and seqlen_k, v head_dim_v: another number of them is another argument's mistake.
ARRAYS = arrays(make)
OF_LSE = arrays(make, dtypes=("float64", "float16", "int32"), rank=3)
OF_Q = without(ARRAYS, "more seqlen", "more batch", "more head_dim", "more heads")
OF_K = without(ARRAYS, "more heads", "more seqlen")
OF_V = without(ARRAYS, "more head_dim")
PARTS = parts(make)
PARTS["seed"]["None"] = None
SIZES = {"seqlen_q", "head_dim", "batch", "num_heads"}
DEFAULT_SIZES = {"seqlen_k", "head_dim_v", "num_heads_kv"}
FUNCTIONS = [
    Function(
        ingot.attention,
        inputs,
        {"q": OF_Q, "k": OF_K, "v": OF_V, **OPTIONS, **PARTS},
        unchecked=("return_lse",),
    ),
    Function(
        ingot.attention_backward,
        saved,
        {"q": OF_Q, "k": OF_K, "v": OF_V, "o": ARRAYS, "lse": OF_LSE, "dout": ARRAYS, **OPTIONS}
        | PARTS
        | {name: {**PARTS[name], "None": None} for name in ("bias", "sinks", "seed")}
        | {"bias_grad": GRADIENT, "sinks_grad": GRADIENT},
    ),
    Function(
        ingot.explain,
        lambda: {"seqlen_q": 5, "head_dim": 8},
        {
            **{name: SIZE for name in SIZES},
            **{name: without(SIZE, "None") for name in DEFAULT_SIZES},
            "dtype": {"other text": "int4", "None": None, **NOT_A_TEXT},
            "format": {"other text": "xml", "None": None, **NOT_A_TEXT},
            **OPTIONS,
        },
    ),
    Function(
        ingot.set_num_threads,
        lambda: {"num_threads": 0},
        {"num_threads": {"negative": -1, "too many": 5000, "None": None, **INTEGER}},
    ),
    Function(ingot.devices, dict, {}),
]


@pytest.mark.parametrize("function,argument,value", cases(FUNCTIONS))
def test_wrong_arguments(function, argument, value):
    refuses(function, argument, value)


@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_right_arguments(function):
    accepts(function)
