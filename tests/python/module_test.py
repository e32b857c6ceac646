"""ingot._core's own functions: no call of them, whatever the arguments, touches foreign memory."""

import gc
import weakref

import ingot
import numpy as np
import pytest
from ingot import _core
from numpy.lib.stride_tricks import as_strided

OPTIONS = (0, -1, -1, 0.0, 0.0, 0, 0, "", 0)
SHAPES = {
    "q": (2, 4, 5, 8),
    "k": (2, 2, 6, 8),
    "v": (2, 2, 6, 3),
    "o": (2, 4, 5, 3),
    "lse": (2, 4, 5),
    "dout": (2, 4, 5, 3),
    "dq": (2, 4, 5, 8),
    "dk": (2, 2, 6, 8),
    "dv": (2, 2, 6, 3),
}
PLAIN = tuple(SHAPES)
SHAPES |= {"dbias": (4, 1, 6), "dsinks": (4,)}
PARTS = {
    "alibi_slopes": (2, 4),
    "bias": (4, 1, 6),
    "mask": (2, 4, 5, 6),
    "sinks": (4,),
    "prefix_len": (2,),
}
SHAPES |= PARTS
DTYPES = {"mask": "bool", "prefix_len": "int32"}
# What each function takes; but for the ragged ones, which take no parts.
NAMES = {
    "forward": (*PLAIN[:5], *PARTS),
    "backward": (*PLAIN, "dbias", "dsinks", *PARTS),
    "forward_ragged": PLAIN[:5],
    "backward_ragged": PLAIN,
}
WRITTEN = {
    "forward": ("o", "lse"),
    "backward": ("dq", "dk", "dv", "dbias", "dsinks"),
    "forward_ragged": ("o", "lse"),
    "backward_ragged": ("dq", "dk", "dv"),
}
BLOCKS = [0, 1, 0, 3, 0, 2, 0, 1, 3, 5, 2, 6, 1, 2, 1, 5, 0, 6]
CALLS = ["forward", "backward", "forward_ragged", "backward_ragged"]


class Memory:
    """Arrays each in the middle of memory that belongs to somebody else."""

    def __init__(self, foreign=777.0, **shapes):
        generator = np.random.default_rng(5)
        self.stores, self.arrays = {}, {}
        for name, shape in (SHAPES | shapes).items():
            size = int(np.prod(shape))
            outside = foreign if name not in DTYPES else foreign == foreign
            store = np.full(size + 2000, outside, DTYPES.get(name, "float32"))
            store[1000 : 1000 + size] = generator.standard_normal(size) * 2
            self.stores[name] = store
            self.arrays[name] = store[1000 : 1000 + size].reshape(shape)

    def run(self, call, blocks=BLOCKS, **instead):
        arrays = self.arrays | instead
        given = [arrays[name] for name in NAMES[call] if name in PLAIN]
        parts = (*(arrays[name] for name in PARTS), 0.25, 3, 4, 0)
        arguments = (*given, *((blocks,) if call.endswith("ragged") else ()), *OPTIONS)
        more = {"forward": (parts,), "backward": (parts, arrays["dbias"], arrays["dsinks"])}
        before = {name: store.copy() for name, store in self.stores.items()}
        try:
            getattr(_core, call)(*arguments, *more.get(call, ()))
        finally:
            for name, store in self.stores.items():
                inside = store[1000:-1000]
                if name in WRITTEN[call]:
                    before[name][1000:-1000] = inside
                np.testing.assert_array_equal(store, before[name], err_msg=name)
        return [arrays[name] for name in WRITTEN[call]]


def test_calls_of_the_time_before_parts():
    """They end with the stream; parts, dbias and dsinks are None."""
    x, y = Memory(), Memory()
    for m, parts, gradients in (
        (x, {}, {}),
        (y, {"parts": None}, {"parts": None, "dbias": None, "dsinks": None}),
    ):
        arrays = m.arrays | {"dk": None}
        _core.forward(*(arrays[name] for name in PLAIN[:5]), *OPTIONS, **parts)
        _core.backward(*(arrays[name] for name in PLAIN), *OPTIONS, **gradients)
    for name in ("o", "lse", "dq", "dv"):
        np.testing.assert_array_equal(x.arrays[name], y.arrays[name], err_msg=name)
    want = ingot.attention(*(x.arrays[name] for name in "qkv"), device="cpu")
    np.testing.assert_array_equal(x.arrays["o"], want)


def disagreements():
    return [
        pytest.param(call, name, axis, id=f"{call}-{name}-{axis}")
        for call in CALLS
        for name in NAMES[call]
        for axis in range(len(SHAPES[name]))
        if (name, axis) != ("mask", 0)  # which may be 1, too
    ]


@pytest.mark.parametrize("call", CALLS)
def test_what_lies_beside_the_arrays_is_neither_read_nor_written(call):
    want = Memory(777.0).run(call)
    got = Memory(float("nan")).run(call)
    for one, other in zip(want, got, strict=True):
        np.testing.assert_array_equal(one, other)


SHAPE_RULE = "^([kvo]|lse|dout|d[qkv]|" + "|".join((*PARTS, "dbias", "dsinks")) + r")\.shape: must"


@pytest.mark.parametrize("call,name,axis", disagreements())
@pytest.mark.parametrize("change", [-1, 1])
def test_tensors_that_disagree(call, name, axis, change):
    shape = list(SHAPES[name])
    shape[axis] += change
    with pytest.raises(ingot.InvalidArgument, match=SHAPE_RULE):
        Memory(**{name: tuple(shape)}).run(call)


@pytest.mark.parametrize("call", ["forward_ragged", "backward_ragged"])
@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("number", [-1, 7, 2**31, 2**62, -(2**63)])
def test_parts_beyond_the_tensors(call, index, number):
    blocks = list(BLOCKS[:6])
    blocks[index] = number
    with pytest.raises(ingot.InvalidArgument, match="^blocks: "):
        Memory().run(call, blocks)


def test_heads_that_do_not_divide_in_a_batch_of_no_parts():
    shapes = {"q": (2, 3, 5, 8), "o": (2, 3, 5, 3), "lse": (2, 3, 5)}
    with pytest.raises(ingot.InvalidArgument, match="num_heads_kv: must divide num_heads 3, got 2"):
        Memory(**shapes).run("forward_ragged", [])
    Memory().run("forward_ragged", [])


def strided(shape, strides, dtype="float32"):
    store = np.zeros(4096, dtype)
    return as_strided(store, shape, [store.itemsize * s for s in strides])


@pytest.mark.parametrize("call", CALLS)
def test_outputs_that_overlap_themselves(call):
    for name in WRITTEN[call]:
        shape = SHAPES[name]
        packed = np.ones(shape, "float32").strides
        for axis in (i for i, n in enumerate(shape) if n > 1):
            strides = [s // 4 for s in packed]
            strides[axis] = 0
            with pytest.raises(ingot.InvalidArgument, match=rf"{name}\.strides?: .*overlap"):
                Memory().run(call, **{name: strided(shape, strides)})


@pytest.mark.parametrize("call", CALLS)
def test_outputs_of_other_kinds(call):
    for name in WRITTEN[call]:
        array = np.zeros(SHAPES[name], "float32")
        array.flags.writeable = False
        with pytest.raises(ingot.InvalidArgument, match=f"^{name}: must be writable"):
            Memory().run(call, **{name: array})
        for dtype in ("int32", "uint16", "bool"):
            with pytest.raises(ingot.InvalidArgument, match=rf"^{name}\.dtype: must be"):
                Memory().run(call, **{name: np.zeros(SHAPES[name], dtype)})


@pytest.mark.parametrize("call", CALLS)
def test_outputs_in_the_memory_of_inputs(call):
    memory = Memory()
    output, array = ("o", "q") if call.startswith("forward") else ("dk", "k")
    same = memory.arrays[array][..., : SHAPES[output][3]]
    with pytest.raises(ingot.InvalidArgument, match=rf"{output}\.data: must not be the same"):
        memory.run(call, **{output: same})


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("stride", [2**60 + 8, 2**61 - 1, -(2**61)])
def test_strides_that_overflow(call, stride):
    for name in NAMES[call]:
        strides = [8] * len(SHAPES[name])
        strides[0] = stride * (4 // np.dtype(DTYPES.get(name, "float32")).itemsize)
        array = strided(SHAPES[name], strides, DTYPES.get(name, "float32"))
        with pytest.raises(ingot.InvalidArgument, match=rf"{name}\.strides?: offsets"):
            Memory().run(call, **{name: array})


class Producer:
    """Speaks DLPack by an array of NumPy."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return (1, 0)


class OneCapsule(Producer):
    """Gives the same capsule to everybody, which no producer may."""

    def __dlpack__(self, **options):
        if not hasattr(self, "capsule"):
            self.capsule = super().__dlpack__(**options)
        return self.capsule


class Old(Producer):
    """Of the time before versions, read-only or not."""

    def __dlpack__(self):
        return self.array.__dlpack__()


def test_producers_of_dlpack(make):
    q, k, v = make(1, 2, 2, 6, 7, 8)
    want = ingot.attention(q, k, v)
    for kind in (Producer, Old):
        np.testing.assert_array_equal(ingot.attention(q, kind(k), kind(v)), want)
    np.testing.assert_array_equal(ingot.attention(q, OneCapsule(k), OneCapsule(v)), want)
    one = OneCapsule(k)
    for _ in range(2):
        with pytest.raises(ingot.InvalidArgument, match="^v: must give a capsule of its own"):
            ingot.attention(q, one, one)
        one.capsule = one.array.__dlpack__()
    np.testing.assert_array_equal(ingot.attention(q, memoryview(k), v), want)


def test_producers_that_fail(make):
    q, k, v = make(1, 2, 2, 6, 7, 8)

    class Failing(Producer):
        def __dlpack__(self, **_):
            raise self.array

    for error in (KeyboardInterrupt(), SystemExit(3)):
        failing = Failing(k)
        failing.array = error
        with pytest.raises(type(error)):
            ingot.attention(q, failing, v)
    failing.array = RuntimeError("first line\nsecond line")
    with pytest.raises(ingot.InvalidArgument, match="^k: must .*: RuntimeError: first line$"):
        ingot.attention(q, failing, v)
    for nothing in (None, 5, q):
        failing.array = nothing
        failing.__class__.__dlpack__ = lambda self, **_: self.array
        with pytest.raises(ingot.InvalidArgument, match="^k: must give a capsule of its own"):
            ingot.attention(q, failing, v)


def test_types_of_arrays_are_not_kept(make):
    q, k, v = make(1, 1, 1, 4, 4, 8)

    def use_once():
        kind = type("Producer", (Producer,), {})
        ingot.attention(q, kind(k), kind(v))
        return weakref.ref(kind)

    seen = [use_once() for _ in range(200)]
    gc.collect()
    assert sum(kind() is not None for kind in seen) <= 64


@pytest.mark.parametrize("position,name", [(3, "scale"), (4, "softcap")])
@pytest.mark.parametrize("number", [1e-50, 1e39])
def test_factors_that_become_0_or_infinite(position, name, number):
    """The rule is the library's, the value the caller's."""
    options = list(OPTIONS)
    options[position] = number
    arrays = Memory().arrays
    rule = {"scale": "its magnitude must be", "softcap": "must be 0 or"}[name]
    text = f"^{name}: {rule} from 1e-37 to 1e37, got {number:g}$".replace("+", r"\+")
    with pytest.raises(ingot.InvalidArgument, match=text):
        _core.forward(*(arrays[x] for x in PLAIN[:5]), *options)
    with pytest.raises(ingot.InvalidArgument, match=text):
        _core.explain([1, 1, 1, 4, 4, 8, 8], "float32", *options[:7], "auto", False)


def test_parts_that_are_no_tuple_of_nine():
    arrays = [Memory().arrays[x] for x in PLAIN[:5]]
    for parts in ((), (None,) * 8, [None] * 9, 5):
        with pytest.raises(ingot.InvalidArgument, match="^parts: must be None or a tuple of nine"):
            _core.forward(*arrays, *OPTIONS, parts)
    for i, name in ((5, "dropout"), (6, "seed"), (7, "seed"), (8, "seed")):
        parts = [None] * 5 + [0.5, 1, 1, 0]
        for wrong in (None, "x", -1 if i > 5 else {}, 2**64 if i > 5 else []):
            parts[i] = wrong
            with pytest.raises(ingot.InvalidArgument, match=f"^{name}: must be a number"):
                _core.forward(*arrays, *OPTIONS, tuple(parts))
    parts = (None,) * 5 + (0.5, 1, 1, 8)
    with pytest.raises(ingot.InvalidArgument, match="^seed: must be numbers, not in a GPU's"):
        _core.forward(*arrays, *OPTIONS, parts)


def test_gradients_of_what_is_not_there():
    arrays = Memory().arrays
    for name in ("dbias", "dsinks"):
        gradients = [arrays[x] if x == name else None for x in ("dbias", "dsinks")]
        with pytest.raises(ingot.InvalidArgument, match=f"^{name}: must be None, there is no"):
            _core.backward(*(arrays[x] for x in PLAIN), *OPTIONS, None, *gradients)


def test_bits_of_bfloat16():
    arrays = Memory().arrays
    for wrong in (arrays["k"], arrays["k"].astype("int16"), arrays["k"].astype("uint32")):
        with pytest.raises(ingot.InvalidArgument, match=r"^k\.dtype: must be uint16, the bits of"):
            Memory().run("forward", k=_core.Bfloat16(wrong))
    for wrong in (5, "x", _core.Bfloat16(arrays["k"])):
        with pytest.raises(ingot.InvalidArgument, match="^k: must be an array that speaks DLPack"):
            Memory().run("forward", k=_core.Bfloat16(wrong))
    bits = (arrays["k"].view("uint32") >> 16).astype("uint16")
    cut = (bits.astype("uint32") << 16).view("float32")
    (got, _), (want, _) = (Memory().run("forward", k=k) for k in (_core.Bfloat16(bits), cut))
    np.testing.assert_allclose(got, want, atol=1e-5)
