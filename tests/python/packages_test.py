"""ingot.attention on arrays of several packages: each is read by its own rules, none of what an
array says (a sign, a mask, a derivative) is lost, and what cannot be kept is refused."""

import importlib

import ingot
import ml_dtypes
import numpy as np
import plain
import pytest
import torch

torch.set_num_threads(1)


def mlx():
    return pytest.importorskip("mlx.core", reason="skipped: MLX is not installed")


def jax():
    return pytest.importorskip("jax", reason="skipped: JAX is not installed")


def in_package(package, array, dtype=None):
    array = array if dtype is None else array.astype(dtype)
    if package == "torch":
        return torch.from_numpy(array)
    if package == "jax":
        return jax().numpy.asarray(array)
    return mlx().array(array) if package == "mlx" else array


PACKAGES = ["numpy", "torch", "jax", "mlx"]


@pytest.mark.parametrize("package", PACKAGES)
def test_integers_of_16_bits_are_not_bfloat16(make, package):
    q, k, v = make(1, 2, 2, 5, 6, 8)
    for position, name in enumerate("qkv"):
        for dtype in ("uint16", "int16"):
            arrays = [in_package(package, x) for x in (q, k, v)]
            arrays[position] = in_package(package, (q, k, v)[position], dtype)
            with pytest.raises(ingot.InvalidArgument, match=rf"^{name}\.dtype: must be.*{dtype}$"):
                ingot.attention(*arrays)


@pytest.mark.parametrize("q_dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kv_dtype", ["float32", "float16", "bfloat16"])
def test_dtypes_of_numpy_mix(make, q_dtype, kv_dtype):
    types = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
    q, k, v = make(1, 2, 2, 5, 6, 8)
    arrays = q.astype(types[q_dtype]), k.astype(types[kv_dtype]), v.astype(types[kv_dtype])
    o, lse = ingot.attention(*arrays, return_lse=True)
    assert o.dtype == types[q_dtype]
    want, _ = plain.attention(*arrays)
    np.testing.assert_allclose(o.astype("float64"), want, atol=2e-2)
    gradients = ingot.attention_backward(*arrays, o, lse, k[:, :, :5])
    for gradient, x in zip(gradients, arrays, strict=True):
        assert gradient.dtype == x.dtype


@pytest.mark.parametrize("first", PACKAGES)
@pytest.mark.parametrize("second", PACKAGES)
def test_packages_mix(make, first, second):
    arrays = make(1, 2, 2, 5, 6, 8)
    want = ingot.attention(*arrays)
    q, k, v = arrays[0], *arrays[1:]
    q, k, v = in_package(first, q), in_package(second, k), in_package(second, v)
    o, lse = ingot.attention(q, k, v, return_lse=True)
    assert type(o) is type(q)
    np.testing.assert_array_equal(np.asarray(o), want)
    dq, dk, dv = ingot.attention_backward(q, k, v, o, lse, o)
    assert (type(dq), type(dk), type(dv)) == (type(q), type(k), type(v))


def some_parts(kind=None):
    """kind: another type of bias and sinks."""
    rng = np.random.default_rng(1)
    return {
        "mask": rng.random((5, 6)) < 0.8,
        "bias": rng.standard_normal((2, 5, 6)).astype(kind or "float32"),
        "alibi_slopes": np.float32([0.5, 0.1]),
        "sinks": np.array([1, 2], kind or "float32"),
        "prefix_len": np.int32([3]),
    }


@pytest.mark.parametrize("first", PACKAGES)
@pytest.mark.parametrize("second", PACKAGES)
def test_parts_are_of_any_package(make, first, second):
    arrays, more = make(1, 2, 2, 5, 6, 8), {"dropout": 0.25, "seed": 3}
    wanted = {"bias_grad": True, "sinks_grad": True}
    want, lse = ingot.attention(*arrays, **some_parts(), **more, return_lse=True)
    gradients = ingot.attention_backward(*arrays, want, lse, want, **some_parts(), **more, **wanted)
    q, k, v = (in_package(first, x) for x in arrays)
    parts = {name: in_package(second, x) for name, x in some_parts().items()}
    o, lse = ingot.attention(q, k, v, **parts, **more, return_lse=True)
    assert type(o) is type(q)
    np.testing.assert_array_equal(np.asarray(o), want)
    got = ingot.attention_backward(q, k, v, o, lse, o, **parts, **more, **wanted)
    kinds = [q, k, v, parts["bias"], parts["sinks"]]
    for x, kind, gradient in zip(got, kinds, gradients, strict=True):
        assert type(x) is type(kind)
        np.testing.assert_array_equal(np.asarray(x), gradient)


@pytest.mark.parametrize("package", PACKAGES)
def test_parts_of_wrong_types_are_refused_in_each_package(make, package):
    arrays = [in_package(package, x) for x in make(1, 2, 2, 5, 6, 8)]
    wrong = {
        "mask": ("float32", "uint8", "int32"),
        "bias": ("bool", "int32", "uint16"),
        "alibi_slopes": ("float16", "int32", "bool"),
        "sinks": ("float16", "int32", "bool"),
        "prefix_len": ("float32", "uint32", "int16", "bool"),
    }
    for name, dtypes in wrong.items():
        for dtype in dtypes:
            part = in_package(package, some_parts()[name], dtype)
            with pytest.raises(ingot.InvalidArgument, match=rf"^{name}\.dtype: must be .*{dtype}$"):
                ingot.attention(*arrays, **{name: part})
    for name, part in some_parts().items():
        with pytest.raises(ingot.Unsupported, match=f"^{name}: must be an array without a mask"):
            ingot.attention(*make(1, 2, 2, 5, 6, 8), **{name: np.ma.masked_array(part)})


@pytest.mark.parametrize("package", ["torch", "jax", "mlx"])
def test_parts_of_bfloat16(make, package):
    arrays = [in_package(package, x) for x in make(1, 2, 2, 5, 6, 8)]
    bias = some_parts()["bias"]
    want = ingot.attention(*arrays, bias=in_package(package, bias.astype("float16").astype("f4")))
    if package == "torch":
        narrow = torch.from_numpy(bias).bfloat16()
    elif package == "jax":
        narrow = jax().numpy.asarray(bias, "bfloat16")
    else:
        narrow = mlx().array(bias).astype(mlx().bfloat16)
    got, lse = ingot.attention(*arrays, bias=narrow, return_lse=True)
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), atol=2e-2)
    *_, dbias = ingot.attention_backward(*arrays, got, lse, got, bias=narrow, bias_grad=True)
    assert dbias.dtype == narrow.dtype and tuple(dbias.shape) == bias.shape


def test_masked_arrays_and_foreign_bytes_are_refused(make):
    q, k, v = make(1, 2, 2, 5, 6, 8)
    with pytest.raises(ingot.Unsupported, match="^k: must be an array without a mask"):
        ingot.attention(q, np.ma.masked_array(k, mask=k > 0), v)
    with pytest.raises(ingot.Unsupported, match="^q: must be an array without a mask"):
        ingot.attention(np.ma.masked_array(q), k, v)
    with pytest.raises(ingot.InvalidArgument, match=r"^v\.dtype: .* in native byte order, got >f4"):
        ingot.attention(q, k, v.astype(">f4"))
    items = np.zeros(v.shape, np.dtype([("x", "f4"), ("y", "i1")]))["x"]
    with pytest.raises(ingot.InvalidArgument, match="^v.*: must"):
        ingot.attention(q, k, items)


def test_outputs_that_no_memory_holds(make):
    q, k, v = make(1, 1, 1, 1, 4, 8)
    many = np.broadcast_to(q, (1, 1, 2**44, 8))
    for array in (many, torch.from_numpy(q).expand(many.shape)):
        options = {"device": "cpu"} if isinstance(array, torch.Tensor) else {}
        with pytest.raises(ingot.OutOfMemory, match="^o: no memory for the shape"):
            ingot.attention(array, k, v, **options)


@pytest.mark.parametrize(
    "name,error",
    [
        ("block_mask", ingot.Unsupported),
        ("score_mod", ingot.Unsupported),
        ("attn_mask", ingot.InvalidArgument),
        ("is_causal", ingot.InvalidArgument),
        ("casual", ingot.InvalidArgument),
    ],
)
def test_arguments_of_other_functions_are_answered(make, name, error):
    arrays = make(1, 2, 2, 5, 5, 8)
    with pytest.raises(error, match=f"^{name}: must be"):
        ingot.attention(*arrays, **{name: 0})
    o, lse = ingot.attention(*arrays, return_lse=True)
    with pytest.raises(error, match=f"^{name}: must be"):
        ingot.attention_backward(*arrays, o, lse, o, **{name: 0})


def tensors(make, **options):
    return [torch.from_numpy(x).requires_grad_(**options) for x in make(1, 2, 2, 5, 6, 8)]


def test_gradients_of_pytorch_flow_through(make):
    inputs = tensors(make)
    o, lse = ingot.attention(*inputs, causal="top_left", return_lse=True)
    want = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True)
    dout = torch.randn(o.shape, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(o, inputs, dout, retain_graph=True)
    for one, other in zip(got, torch.autograd.grad(want, inputs, dout), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    saved = (*inputs, o, lse, dout)
    gradients = ingot.attention_backward(*saved, causal="top_left")
    for one, other in zip(gradients, got, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    with pytest.raises(ingot.Unsupported, match="double backward"):
        gradients[0].sum().backward()


def test_gradients_of_pytorch_are_refused_where_they_cannot_flow(make):
    q, k, v = tensors(make)
    plain_k = k.detach().numpy()
    for name, arrays, options in (
        ("q", (q, k, v), {"device": "reference"}),
        ("v", (q.detach(), plain_k, v), {}),
        ("v", (q.detach().numpy(), plain_k, v), {}),
    ):
        with pytest.raises(ingot.Unsupported, match=f"^{name}: must not be differentiated here"):
            ingot.attention(*arrays, **options)
        with torch.no_grad():
            ingot.attention(*arrays, **options)
    with pytest.raises(ingot.Unsupported, match="^scale: must not require gradients"):
        ingot.attention(q, k, v, scale=torch.tensor(0.5, requires_grad=True))


@pytest.mark.parametrize("device", [None, "reference"])
def test_signs_that_pytorch_has_not_applied_yet(make, device):
    lazy = [torch.complex(x, -x).conj().imag for x in tensors(make, requires_grad=False)]
    assert all(x.is_neg() for x in lazy)
    eager = [x.resolve_neg() for x in lazy]
    o, lse = ingot.attention(*eager, return_lse=True, device=device)
    torch.testing.assert_close(ingot.attention(*lazy, device=device), o, atol=0, rtol=0)
    dout = torch.complex(o, -o).conj().imag
    got = ingot.attention_backward(*lazy, o, lse, dout, device=device)
    want = ingot.attention_backward(*eager, o, lse, o, device=device)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_tensors_without_memory_of_their_own(make):
    q, k, v = tensors(make, requires_grad=False)
    wrong = {
        "meta": k.to("meta"),
        "sparse": k.to_sparse(),
        "shrunk": k.clone(),
        "fp8": k.to(torch.float8_e4m3fn),
    }
    wrong["shrunk"].untyped_storage().resize_(16)
    for tensor in wrong.values():
        for others in ((q, v), (q.numpy(), v)):
            with pytest.raises(ingot.Error, match="^k[.:]"):
                ingot.attention(others[0], tensor, others[1], device="cpu")


def test_mlx_is_told_that_there_is_no_derivative(make):
    mx = mlx()
    q, k, v = (mx.array(x) for x in make(1, 2, 2, 5, 6, 8))

    def loss(q):
        return ingot.attention(q, k, v).sum()

    o, lse = ingot.attention(q, k, v, return_lse=True)

    def gradient(q):
        return ingot.attention_backward(q, k, v, o, lse, o)[0].sum()

    for function in (loss, gradient):
        with pytest.raises(ingot.Unsupported, match="use ingot.mlx.attention"):
            mx.grad(function)(q)
        with pytest.raises(ingot.Unsupported, match="use ingot.mlx.attention"):
            mx.jvp(function, [q], [q])
        with pytest.raises(ingot.Unsupported, match="^q: must have values, not be traced by MLX"):
            mx.compile(function)(q)
    wanted = importlib.import_module("ingot.mlx").attention
    assert mx.abs(mx.grad(lambda q: wanted(q, k, v).square().sum())(q)).max() > 0


def test_arrays_of_jax_that_are_gone(make):
    q, k, v = (jax().numpy.asarray(x) for x in make(1, 2, 2, 5, 6, 8))
    k.delete()
    with pytest.raises(ingot.InvalidArgument, match="^k: must be readable, got RuntimeError"):
        ingot.attention(q, k, v)
