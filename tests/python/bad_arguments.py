"""Every argument of a function, wrong in every way: what all doors must answer with one line.

A door's test lists its functions and calls this:

    FUNCTIONS = [
        Function(ingot.attention, good=lambda: {"q": q, "k": k, "v": v}, wrong={
            "q": arrays(make), "k": arrays(make), "v": arrays(make),
            "causal": CAUSAL, "window": WINDOW, "scale": FACTOR,
        }),
    ]

    @pytest.mark.parametrize("function,argument,value", cases(FUNCTIONS))
    def test_wrong_arguments(function, argument, value):
        refuses(function, argument, value)

    @pytest.mark.parametrize("function", FUNCTIONS, ids=str)
    def test_right_arguments(function):
        accepts(function)

`wrong` maps each argument to {name of the mistake: value}. A value that is a Given is made from the
argument of the good call; every other value is handed over as it is.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import ingot
import pytest


@dataclasses.dataclass(frozen=True)
class Given:
    """A wrong value that is made from the right one."""

    make: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Function:
    """A public function, the arguments of a call that works, and wrong values for each.

    called: other words by which a message may name an argument, as {"k": "q, k, v"}.
    unchecked: arguments without a wrong value, such as those that are only tested for truth.
    """

    call: Callable
    good: Callable[[], dict]
    wrong: dict[str, dict[str, Any]]
    called: dict[str, str] = dataclasses.field(default_factory=dict)
    unchecked: tuple[str, ...] = ()
    name: str = ""

    def __str__(self):
        return self.name or self.call.__name__


def cases(functions):
    """pytest parameters (function, argument, value)."""
    return [
        pytest.param(function, argument, value, id=f"{function}-{argument}-{mistake}")
        for function in functions
        for argument, mistakes in function.wrong.items()
        for mistake, value in mistakes.items()
    ]


def accepts(function):
    """The good call works, and each argument of the signature has wrong values or a reason."""
    function.call(**function.good())
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(function.call).parameters.values()
    named = {p.name for p in parameters if p.kind not in kinds}
    assert named == {*function.wrong, *function.unchecked}, f"{function}: arguments without a row"


def refuses(function, argument, value):
    """The call with this one argument wrong raises an error of ingot, in one line that begins with
    the arguments it is about and names this one."""
    arguments = function.good()
    if isinstance(value, Given):
        value = value.make(arguments[argument])
    arguments[argument] = value
    with pytest.raises(Exception) as raised:  # noqa: B017, PT011 - which one is looked at below
        function.call(**arguments)
    error = raised.value
    text = str(error)
    assert isinstance(
        error, ingot.Error
    ), f"{type(error).__module__}.{type(error).__name__}: {text}"
    assert "\n" not in text
    assert ": " in text
    name = function.called.get(argument, argument)
    assert re.search(rf"(?<![a-z]){re.escape(name)}", text), f"does not name {name}: {text}"


class Opaque:
    """An object that is nothing in particular."""

    def __repr__(self):
        return "Opaque()"


NO_VALUE = {"list": [1.0], "dict": {}, "object": Opaque(), "function": len}
NOT_A_TEXT = {"number": 5, "bytes": b"cpu", **NO_VALUE}
NOT_A_NUMBER = {"str": "1", "bool": True, "complex": 1j, **NO_VALUE}
INTEGER = {
    **NOT_A_NUMBER,
    "half": 1.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "2**70": 2**70,
    "-2**70": -(2**70),
}
SIZE = {**INTEGER, "None": None, "negative": -1}
FACTOR = {
    **NOT_A_NUMBER,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": -float("inf"),
    "zero": 0,
    "underflows": 1e-50,
    "too small": 9.9e-38,
    "too large": -1.1e37,
    "overflows": 1e39,
    "10**400": 10**400,
}
POSITIVE_FACTOR = {**FACTOR, "negative": -1.0}
CAUSAL = {"bool": True, "number": 1, "other text": "lower_right", **NO_VALUE}
PRECISION = {"bool": True, "number": 1, "other text": "medium", **NO_VALUE}
WINDOW = {
    "number": 3,
    "str": "20",
    "one": (1,),
    "three": (1, 2, 3),
    "inf": (float("inf"), 0),
    "nan": (0, float("nan")),
    "fraction": (1.9, 0),
    "negative": (-7, 1),
    "2**70": (2**70, 0),
    "bool": (True, 0),
    "nested": ([], 0),
    "dict": {},
    "object": Opaque(),
}
WORKSPACE_LIMIT = {**INTEGER, "zero": 0, "negative": -1}


DROPOUT = {
    "str": "0.5",
    "bool": True,
    "complex": 1j,
    **NO_VALUE,
    "nan": float("nan"),
    "inf": float("inf"),
    "negative": -0.5,
    "one": 1,
    "more": 1.5,
    "too little": 2.0**-17,
    "underflows": 1e-50,
    "almost one": 1 - 2.0**-17,
}
SEED = {
    "str": "1",
    "bool": True,
    "complex": 1j,
    **NO_VALUE,
    "half": 1.5,
    "negative": -1,
    "2**64": 2**64,
    "three": (1, 2, 3),
    "negative offset": (1, -1),
    "an offset of 2**64": (1, 2**64),
    "nested": ((1, 2), 3),
}
GRADIENT = {"number": 1, "None": None, "str": "yes", **NO_VALUE}


def parts(make):
    """Wrong values for the parts of good_parts(make), but for None; make as in arrays()."""
    no_mask = "float64 float16 int32 uint8 complex64".split()
    numbers = "float64 bool int32 complex64".split()
    return {
        "mask": {**_part(make, no_mask), "rank 1": Given(lambda x: make(x, shape=(5,)))},
        "bias": {**_part(make, numbers), "rank 1": Given(lambda x: make(x, shape=(5,)))},
        "alibi_slopes": {
            **_part(make, [*numbers, "float16"]),
            "of all but one": Given(lambda x: make(x, shape=(1,))),
            "rank 0": Given(lambda x: make(x, shape=())),
        },
        "sinks": {
            **_part(make, [*numbers, "float16"]),
            "of each entry": Given(lambda x: make(x, shape=(2, 2))),
            "rank 0": Given(lambda x: make(x, shape=())),
        },
        "prefix_len": {
            **_part(make, "int64 uint32 int16 float32 bool".split()),
            "rank 0": Given(lambda x: make(x, shape=())),
            "rank 2": Given(lambda x: make(x, shape=(2, 2))),
        },
        "dropout": {**DROPOUT},
        "seed": {**SEED},
    }


def good_parts(make):
    """Those of q (2, 2, 5, 8) and k alike; make(None, dtype, shape) is an array of ones."""
    return {
        "mask": make(None, "bool", (2, 2, 5, 5)),
        "bias": make(None, "float32", (2, 5, 5)),
        "alibi_slopes": make(None, "float32", (2,)),
        "sinks": make(None, "float32", (2,)),
        "prefix_len": make(None, "int32", (2,)),
        "dropout": 0.5,
        "seed": 1,
    }


def _part(make, dtypes):
    wrong = {
        "str": "x",
        "number": 3,
        **NO_VALUE,
        "longer": Given(lambda x: make(x, shape=_longer(x.shape, len(x.shape) - 1))),
        "rank 5": Given(lambda x: make(x, shape=(1,) * 5)),
    }
    for dtype in dtypes:
        wrong[dtype] = Given(lambda x, dtype=dtype: make(x, dtype=dtype))
    return wrong


def arrays(make, dtypes=("uint16", "int32", "bool", "complex64"), optional=False, rank=4):
    """Wrong values for an array of four dimensions, or of three as lse. make(array, dtype=None,
    shape=None): one like the right one, but for these. optional: None is right, too."""
    wrong = {
        "str": "x",
        "number": 3,
        **NO_VALUE,
        "rank 0": Given(lambda x: make(x, shape=())),
        "rank less": Given(lambda x: make(x, shape=x.shape[1:])),
        "rank more": Given(lambda x: make(x, shape=(1, *x.shape))),
    }
    for axis, size in enumerate(("batch", "heads", "seqlen", "head_dim")[:rank]):
        wrong[f"more {size}"] = Given(lambda x, axis=axis: make(x, shape=_longer(x.shape, axis)))
    for dtype in dtypes:
        wrong[dtype] = Given(lambda x, dtype=dtype: make(x, dtype=dtype))
    if not optional:
        wrong["None"] = None
    return wrong


def without(mistakes, *names):
    """The same mistakes but for some, which the function in question has no rule against."""
    return {name: value for name, value in mistakes.items() if name not in names}


def _longer(shape, axis):
    return tuple(size + 1 if i == axis else size for i, size in enumerate(shape))
