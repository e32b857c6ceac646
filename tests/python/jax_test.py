"""ingot.jax under jit, grad and shard_map, its errors, and JAX arrays in ingot.attention."""

import ingot
import ingot.jax
import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def gpus():
    try:
        return jax.devices("gpu")
    except RuntimeError:
        return []


DEVICES = [jax.devices("cpu")[0], *gpus()[:1]]
OPTIONS = [
    {},
    {"causal": "bottom_right"},
    {"causal": "top_left", "softcap": 2.0},
    {"window": (4, 2), "scale": 0.3},
    {"precision": "highest", "workspace_limit": 1 << 20},
]


def reference(q, k, v, *, causal=None, window=None, scale=None, softcap=None):
    """(o, lse) by JAX's own operations, which JAX differentiates."""
    group = q.shape[1] // k.shape[1]
    k, v = (jnp.repeat(x, group, 1) for x in (k, v))
    s = jnp.einsum("bhqd,bhkd->bhqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        s = softcap * jnp.tanh(s / softcap)
    seen = plain.visible(q.shape[2], k.shape[2], causal, window)
    sees_a_key = seen.any(-1)
    s = jnp.where(seen | ~sees_a_key[:, None], s, -jnp.inf)
    lse = jax.nn.logsumexp(s, -1)
    o = jnp.where(sees_a_key[:, None], jnp.exp(s - lse[..., None]) @ v, 0)
    return o, jnp.where(sees_a_key, lse, 0)


def loss_of(function, seen):
    """A loss in which o and, of the rows that see a key, lse are of weight."""

    def loss(q, k, v):
        o, lse = function(q, k, v)
        return (o.astype(jnp.float32) ** 2).sum() + jnp.sin(3 * jnp.where(seen, lse, 0)).sum()

    return loss


def gradients_of(loss):
    return jax.jit(jax.grad(loss, (0, 1, 2)))


def with_lse(**options):
    return lambda q, k, v: ingot.jax.attention(q, k, v, return_lse=True, **options)


def for_plain(options):
    return {n: v for n, v in options.items() if n not in ("precision", "workspace_limit")}


@pytest.fixture(params=DEVICES, ids=lambda device: device.platform)
def put(request):
    """put(array, dtype=None): the array on a device; a machine without a GPU has one."""

    def on_device(array, dtype=None):
        return jax.device_put(jnp.asarray(array, dtype), request.param)

    on_device.is_cpu = request.param.platform == "cpu"
    return on_device


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_jit_and_grad(make, put, options):
    arrays = make(2, 4, 2, 13, 18, 16, 24)
    inputs = [put(x) for x in arrays]

    def run(q, k, v):
        return ingot.jax.attention(q, k, v, **options)

    result = jax.jit(run)(*inputs)
    assert result.devices() == inputs[0].devices()
    np.testing.assert_allclose(result, plain.attention(*arrays, **for_plain(options))[0], atol=2e-6)
    gradients = jax.jit(jax.grad(lambda *x: (run(*x) ** 2).sum(), argnums=(0, 1, 2)))(*inputs)
    o, lse = ingot.attention(*arrays, return_lse=True, **options)
    wanted = ingot.attention_backward(*arrays, o, lse, 2 * o, **options)
    for gradient, want in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(gradient, want, atol=0 if put.is_cpu else 1e-5)


def test_lse_and_vmap(make, put):
    arrays = make(3, 2, 2, 7, 7, 8)
    inputs = [put(x) for x in arrays]
    o, lse = ingot.jax.attention(*inputs, return_lse=True)
    np.testing.assert_allclose(lse, plain.attention(*arrays)[1], atol=2e-6)
    mapped = jax.vmap(lambda *x: ingot.jax.attention(*(t[None] for t in x)))(*inputs)
    np.testing.assert_array_equal(mapped[:, 0], o)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_half_precision(make, put, dtype):
    arrays = make(1, 2, 2, 70, 90, 64)
    inputs = [put(x, dtype) for x in arrays]
    o = ingot.jax.attention(*inputs)
    assert o.dtype == dtype
    np.testing.assert_allclose(o.astype(jnp.float32), plain.attention(*arrays)[0], atol=2e-2)
    if not put.is_cpu:
        with pytest.raises(ingot.Unsupported, match="q: is on a GPU of JAX; use ingot.jax"):
            ingot.attention(*inputs)
        return
    direct = ingot.attention(*inputs)
    assert isinstance(direct, jax.Array)
    np.testing.assert_array_equal(o.astype(jnp.float32), direct.astype(jnp.float32))


def test_a_chain_of_calls(make, put):
    """Enough work for XLA to gather it (in a CUDA graph on a GPU), with other operations between;
    run twice, since gathered work is only replayed from then on."""
    arrays = make(2, 2, 2, 70, 70, 64)
    inputs = [put(x) for x in arrays]

    @jax.jit
    def chain(q, k, v):
        for _ in range(6):
            q = (ingot.jax.attention(q, k, v, causal="bottom_right") + q) / 2
        return q

    want, k, v = (x.astype(np.float64) for x in arrays)
    for _ in range(6):
        want = (plain.attention(want, k, v, causal="bottom_right")[0] + want) / 2
    for _ in range(3):
        np.testing.assert_allclose(chain(*inputs), want, atol=1e-5)


LSE_OPTIONS = [
    {},
    {"causal": "bottom_right"},  # with more queries than keys: rows that see none
    {"window": (4, 2), "scale": 0.3},
    {"causal": "top_left", "softcap": 2.0},
]


@pytest.mark.parametrize("options", LSE_OPTIONS, ids=str)
def test_gradient_of_lse(make, put, options):
    inputs = [put(x) for x in make(2, 4, 2, 18, 13, 16, 24)]
    seen = plain.visible(18, 13, options.get("causal"), options.get("window")).any(-1)
    gradients = gradients_of(loss_of(with_lse(**options), seen))(*inputs)
    want = gradients_of(loss_of(lambda *x: reference(*x, **options), seen))(*inputs)
    for gradient, wish in zip(gradients, want, strict=True):
        np.testing.assert_allclose(gradient, wish, atol=2e-5)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint], ids=["eager", "checkpoint"])
def test_gradient_of_lse_alone(make, put, wrap):
    inputs = [put(x) for x in make(1, 2, 1, 5, 9, 8)]
    gradients = jax.grad(wrap(lambda *x: with_lse()(*x)[1].sum()), (0, 1, 2))(*inputs)
    want = gradients_of(lambda *x: reference(*x)[1].sum())(*inputs)
    for gradient, wish in zip(gradients, want, strict=True):
        np.testing.assert_allclose(gradient, wish, atol=2e-6)


def test_gradient_of_lse_in_half_precision(make, put):
    """A large gradient of lse is no more rounded than the result."""
    inputs = [put(x, jnp.bfloat16) for x in make(1, 2, 2, 40, 50, 32)]
    gradients = gradients_of(lambda *x: (1234.5678 * with_lse()(*x)[1]).sum())(*inputs)
    want = gradients_of(lambda *x: (1234.5678 * reference(*x)[1]).sum())(
        *(np.asarray(x, np.float32) for x in inputs)
    )
    for gradient, wish in zip(gradients, want, strict=True):
        assert gradient.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(gradient, np.float32), wish, rtol=1e-2, atol=1)


def test_gradient_of_lse_at_the_largest_head_dim(make):
    q, k, v = make(1, 1, 1, 3, 4, 8, 1023)
    gradients = gradients_of(lambda *x: with_lse()(*x)[1].sum())
    want = gradients_of(lambda *x: reference(*x)[1].sum())(q, k, v)
    for gradient, wish in zip(gradients(q, k, v), want, strict=True):
        np.testing.assert_allclose(gradient, wish, atol=1e-6)
    v = np.ones((1, 1, 4, 1024), "float32")
    with pytest.raises(ingot.Unsupported, match="lse needs head_dim_v < 1024, got 1024"):
        gradients(q, k, v)


def mesh_of_two(axis_type):
    return jax.make_mesh((2,), ("x",), axis_types=(axis_type,), devices=jax.devices("cpu"))


P = PartitionSpec
SPECS = {
    "batch": (P("x"), P("x"), P("x")),
    "heads": (P(None, "x"), P(None, "x"), P(None, "x")),
    "queries": (P(None, None, "x"), P(), P()),  # k and v are everywhere: gradients are summed
    "none": (P(), P(), P()),
}


@pytest.mark.parametrize(
    ("check", "wrap"),
    [(True, jax.jit), (False, jax.jit), (True, lambda f: f)],
    ids=["check_vma", "no_check", "eager"],
)
@pytest.mark.parametrize("name", SPECS)
def test_gradient_under_shard_map(make, name, check, wrap):
    inputs = make(2, 2, 2, 6, 10, 8)
    mesh = mesh_of_two(AxisType.Auto)
    specs = SPECS[name]

    def sharded(function):
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=specs,
            out_specs=(specs[0], P(*specs[0][:3])),
            check_vma=check,
        )

    gradients = wrap(jax.grad(loss_of(sharded(with_lse()), True), (0, 1, 2)))(*inputs)
    want = gradients_of(loss_of(reference, True))(*inputs)
    for gradient, wish in zip(gradients, want, strict=True):
        np.testing.assert_allclose(gradient, wish, atol=1e-5)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_sharded_arrays_under_jit(make, axis_type):
    arrays = make(2, 2, 2, 6, 10, 8)
    mesh = mesh_of_two(axis_type)
    with jax.set_mesh(mesh):
        inputs = [jax.device_put(x, NamedSharding(mesh, P("x"))) for x in arrays]
        o, _ = jax.jit(with_lse())(*inputs)
        gradients = gradients_of(loss_of(with_lse(), True))(*inputs)
    np.testing.assert_allclose(o, plain.attention(*arrays)[0], atol=2e-6)
    want = gradients_of(loss_of(reference, True))(*arrays)
    for gradient, wish in zip(gradients, want, strict=True):
        np.testing.assert_allclose(gradient, wish, atol=1e-5)


def test_no_derivative_is_zero_in_silence(make):
    q, k, v = (jnp.asarray(x) for x in make(1, 1, 1, 3, 4, 8))

    def total(q):
        return ingot.jax.attention(q, k, v).sum()

    for derivative in (jax.grad, lambda f: jax.jit(jax.grad(f))):
        with pytest.raises(ingot.Unsupported, match="has no second derivatives"):
            derivative(lambda q: (jax.grad(total)(q) ** 2).sum())(q)
    for forward in (jax.jacfwd(total), lambda q: jax.jvp(total, (q,), (q,)), jax.hessian(total)):
        with pytest.raises(TypeError, match="forward-mode"):
            forward(q)


@pytest.mark.parametrize(
    "options",
    [
        lambda x: {"scale": x},
        lambda x: {"softcap": x},
        lambda x: {"window": (x, 0)},
        lambda x: {"workspace_limit": x},
        lambda x: {"causal": x},
        lambda x: {"return_lse": x},
    ],
    ids=["scale", "softcap", "window", "workspace_limit", "causal", "return_lse"],
)
def test_options_are_not_traced(make, options):
    """Neither by jit nor by grad, in which a value is at hand and its derivative would be lost."""
    q, k, v = (jnp.asarray(x) for x in make(1, 1, 1, 3, 4, 8))
    name = next(iter(options(0)))
    rule = f"^{name}: must be a value that JAX does not trace"
    for transform in (jax.jit, jax.grad):
        with pytest.raises(ingot.InvalidArgument, match=rule):
            transform(lambda x: jnp.sum(ingot.jax.attention(q, k, v, **options(x))))(2.0)


def test_errors(make):
    """The same under jit, and by name of the argument."""
    q, k, v = (jnp.asarray(x) for x in make(1, 4, 2, 7, 9, 16))
    dtypes = "must be float32, float16, bfloat16 or float64, got"
    for arguments, text in [
        ((q, k[..., :4], v), r"k.shape: must be \(1, 2, 9, 16\), got \(1, 2, 9, 4\)"),
        ((q, k, v[:, :1]), r"v.shape: must be \(1, 2, 9, 16\), got \(1, 1, 9, 16\)"),
        ((q[:, :3], k, v), "num_heads_kv: must divide num_heads 3, got 2"),
        ((q.astype("int32"), k, v), f"q.dtype: {dtypes} int32"),
        ((q, k, v.astype(jnp.float8_e4m3fn)), f"v.dtype: {dtypes} float8_e4m3fn"),
        ((jnp.zeros((1, 1, 1, 1025)), jnp.zeros((1, 1, 1, 1025)), v[:, :1, :1]), "head_dim: must"),
    ]:
        for function in (ingot.jax.attention, jax.jit(ingot.jax.attention)):
            with pytest.raises(ingot.InvalidArgument, match=text):
                function(*arguments)
    with pytest.raises(ingot.Unsupported, match="q: is traced by JAX; use ingot.jax.attention"):
        jax.jit(lambda x: ingot.attention(x, x, x))(q)


ATTRIBUTES = {
    "causal": np.int64(0),
    "window_left": np.int64(-1),
    "window_right": np.int64(-1),
    "scale": np.float64(0),
    "softcap": np.float64(0),
    "precision": np.int64(0),
    "workspace_limit": np.int64(0),
}


def test_calls_of_the_targets_by_their_names(make):
    """XLA does not look at sizes: a wrong one must not lead beyond the memory of an array."""
    q, k, v = (jnp.asarray(x) for x in make(1, 2, 1, 5, 6, 8))
    o, lse = ingot.jax.attention(q, k, v, return_lse=True)

    def call(target, results, arrays, **attributes):
        kinds = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results]
        function = jax.ffi.ffi_call(target, kinds)
        return jax.block_until_ready(function(*arrays, **{**ATTRIBUTES, **attributes}))

    np.testing.assert_array_equal(call("ingot_forward", (o, lse), (q, k, v))[0], o)
    gradients = call("ingot_backward", (q, k, v), (q, k, v, o, lse, o))
    assert [x.shape for x in gradients] == [x.shape for x in (q, k, v)]
    less = {"o": o[:, :, :2], "lse": lse[..., :2], "q": q[:, :, :2], "k": k[:, :, :2]}
    for target, results, arrays, text in [
        ("ingot_forward", (o, lse), (q, k, v[:, :, :2]), "v.shape: must be"),
        ("ingot_forward", (o, lse), (q, less["k"], v), "v.shape: must be"),
        ("ingot_forward", (less["o"], lse), (q, k, v), "o.shape: must be"),
        ("ingot_forward", (o, less["lse"]), (q, k, v), "lse.shape: must be"),
        ("ingot_forward", (o, lse.astype("float16")), (q, k, v), "lse.dtype: must be float32"),
        ("ingot_forward", (o,), (q, k, v), "lse: must be among the buffers"),
        ("ingot_forward", (o, lse), (q, k.astype("int8"), v), "k.dtype: .* got int8"),
        ("ingot_backward", (q, k, v), (q, k, v, less["o"], lse, o), "o.shape: must be"),
        ("ingot_backward", (q, k, v), (q, k, v, o, less["lse"], o), "lse.shape: must be"),
        ("ingot_backward", (q, k, v), (q, k, v, o, lse, less["o"]), "dout.shape: must be"),
        ("ingot_backward", (less["q"], k, v), (q, k, v, o, lse, o), "dq.shape: must be"),
        ("ingot_backward", (q, less["k"], v), (q, k, v, o, lse, o), "dk.shape: must be"),
        ("ingot_backward", (q, k, less["k"]), (q, k, v, o, lse, o), "dv.shape: must be"),
    ]:
        with pytest.raises(Exception, match=f"INVALID_ARGUMENT: {text}"):
            call(target, results, arrays)
    for attributes, text in [
        ({"causal": np.int8(1)}, "causal: must be an attribute of type int64"),
        ({"scale": np.float32(1)}, "scale: must be an attribute of type float64"),
        ({"causal": np.int64(7)}, "causal: must be"),
    ]:
        with pytest.raises(Exception, match=f"INVALID_ARGUMENT: {text}"):
            call("ingot_forward", (o, lse), (q, k, v), **attributes)
