"""Derivatives of ingot.torch, by autograd and by torch.func: right, or refused."""

import ingot
import ingot.torch
import pytest
import torch
from torch_cases import BLOCKS, KINDS, OPTIONS, each_kind, function_of, operands


def gradients_by_autograd(f, inputs):
    inputs = [x.detach().requires_grad_() for x in inputs]
    return torch.autograd.grad(f(*inputs).square().sum(), inputs)


@each_kind
def test_torch_func_grad_and_vjp(kind):
    f, inputs = function_of(kind), operands()
    want = gradients_by_autograd(f, inputs)
    got = torch.func.grad(lambda *x: f(*x).square().sum(), argnums=(0, 1, 2))(*inputs)
    o, pull = torch.func.vjp(f, *inputs)
    for a, b, c in zip(got, pull(2 * o), want, strict=True):
        assert torch.equal(a, c) and torch.equal(b, c)


@each_kind
def test_vmap_is_a_loop_over_samples(kind):
    f, inputs = function_of(kind), operands(samples=(3,))
    q, k, v = inputs[0].movedim(0, 2), inputs[1], inputs[2][1]
    got = torch.vmap(f, in_dims=(2, 0, None))(q, k, v)
    for i in range(3):
        assert torch.equal(got[i], f(inputs[0][i], k[i], v))
    with pytest.raises(ingot.InvalidArgument, match="q: must have 4 dimensions within vmap, got 3"):
        torch.vmap(f)(inputs[0][0], k[0], k[0])


@each_kind
def test_gradients_per_sample(kind):
    f, inputs = function_of(kind), operands(samples=(2,))
    loss = lambda *x: f(*x).square().sum()  # noqa: E731
    got = torch.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))(*inputs)
    for i in range(2):
        want = gradients_by_autograd(f, [x[i] for x in inputs])
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a[i], b)


def test_jacrev():
    inputs = [x[:1, :2, :2, :3].contiguous() for x in operands(dtype=torch.float64)]

    def by_pytorch(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    got = torch.func.jacrev(ingot.torch.attention, argnums=(0, 1, 2))(*inputs)
    want = torch.func.jacrev(by_pytorch, argnums=(0, 1, 2))(*inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def with_lse(kind, q, k, v):
    """(o, lse) by PyTorch's elementary operations."""
    (batch, _, rows, _), cols = q.shape, k.shape[2]
    if kind == "ragged":
        _, batch, _, rows, _, cols = BLOCKS
    q, k, v = q[:batch, :, :rows], k[:batch, :, :cols], v[:batch, :, :cols]
    k, v = (x.repeat_interleave(2, 1) for x in (k, v))
    s = q @ k.mT / q.shape[-1] ** 0.5
    s = s.masked_fill(~torch.ones(rows, cols).tril(cols - rows).bool(), float("-inf"))
    return s.softmax(-1) @ v, s.logsumexp(-1)


@each_kind
@pytest.mark.parametrize("of_o", [1.0, 0.0], ids=["both", "lse alone"])
def test_the_gradient_of_lse(kind, of_o):
    inputs = operands(requires_grad=True)
    forward, _, blocks = KINDS[kind]
    want_o, want_lse = with_lse(kind, *inputs)
    o, lse = (x[tuple(map(slice, want_lse.shape))] for x in forward(*inputs, *blocks, *OPTIONS))
    weights = torch.randn_like(want_o), torch.randn_like(want_lse)

    def loss(o, lse):
        of_lse = (lse * weights[1]).sum()
        return of_lse + (o * weights[0]).sum() if of_o else of_lse

    got = torch.autograd.grad(loss(o, lse), inputs, materialize_grads=True)
    want = torch.autograd.grad(loss(want_o, want_lse), inputs, materialize_grads=True)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_gradient_of_lse_compiled():
    inputs = operands(requires_grad=True)

    def step(q, k, v):
        return ingot.torch.attention(q, k, v, return_lse=True)

    def gradients(f):
        o, lse = f(*inputs)
        return torch.autograd.grad(o.square().sum() + lse.sin().sum(), inputs)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for a, b in zip(gradients(compiled), gradients(step), strict=True):
        torch.testing.assert_close(a, b)


def test_batched_gradients():
    inputs = operands(requires_grad=True)
    o = function_of("plain")(*inputs)
    douts = torch.randn(2, *o.shape)
    got = torch.autograd.grad(o, inputs, douts, is_grads_batched=True, retain_graph=True)
    for i in range(2):
        want = torch.autograd.grad(o, inputs, douts[i], retain_graph=True)
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a[i], b)


def test_compiled_gradients_per_sample():
    f, inputs = function_of("plain"), operands(samples=(2,))
    step = torch.vmap(torch.func.grad(lambda *x: f(*x).square().sum(), argnums=(0, 1, 2)))
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for a, b in zip(compiled(*inputs), step(*inputs), strict=True):
        torch.testing.assert_close(a, b)


def dual(f, inputs):
    with torch.autograd.forward_ad.dual_level():
        made = [torch.autograd.forward_ad.make_dual(x, x) for x in inputs]
        return f(*made)


def dual_without_graph(f, inputs):
    with torch.no_grad():
        return dual(f, inputs)


def dual_gradient(f, inputs):
    """Forward over reverse."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    o = f(*inputs)
    with torch.autograd.forward_ad.dual_level():
        dout = torch.autograd.forward_ad.make_dual(torch.ones_like(o), torch.ones_like(o))
        return torch.autograd.grad(o, inputs, dout)


def loss_of(f):
    return lambda *x: f(*x).square().sum()


FORWARD_MODES = {
    "jvp": lambda f, x: torch.func.jvp(f, tuple(x), tuple(x)),
    "jacfwd": lambda f, x: torch.func.jacfwd(f)(*x),
    "linearize": lambda f, x: torch.func.linearize(f, *x)[1](*x),
    "hessian": lambda f, x: torch.func.hessian(loss_of(f))(*x),
    "jvp of grad": lambda f, x: torch.func.jvp(
        torch.func.grad(loss_of(f), argnums=(0, 1, 2)), tuple(x), tuple(x)
    ),
    "grad of jvp": lambda f, x: torch.func.grad(
        lambda q: torch.func.jvp(lambda y: loss_of(f)(y, *x[1:]), (q,), (q,))[1]
    )(x[0]),
    "dual numbers": dual,
    "dual numbers under no_grad": dual_without_graph,
    "dual gradient": dual_gradient,
}


@each_kind
@pytest.mark.parametrize("mode", FORWARD_MODES)
def test_forward_mode_is_refused(kind, mode):
    with pytest.raises(ingot.Unsupported, match="forward-mode"):
        FORWARD_MODES[mode](function_of(kind), operands())


def twice_by_autograd(f, inputs):
    inputs = [x.detach().requires_grad_() for x in inputs]
    (dq,) = torch.autograd.grad(f(*inputs).sum(), inputs[0], create_graph=True)
    return torch.autograd.grad(dq.sum(), inputs[0])


def through_dout(f, inputs):
    """The gradient is linear in dout alone, and differentiated by it."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    o = f(*inputs)
    dout = torch.ones_like(o, requires_grad=True)
    (dq,) = torch.autograd.grad(o, inputs[0], dout, create_graph=True)
    return torch.autograd.grad(dq.sum(), dout)


SECOND = {
    "create_graph": twice_by_autograd,
    "dout": through_dout,
    "func": lambda f, x: torch.func.grad(
        lambda q: torch.func.grad(lambda y: loss_of(f)(y, *x[1:]))(q).sum()
    )(x[0]),
    "jacrev": lambda f, x: torch.func.jacrev(torch.func.jacrev(loss_of(f)))(*x),
    "functional.hessian": lambda f, x: torch.autograd.functional.hessian(loss_of(f), tuple(x)),
    "functional.jvp": lambda f, x: torch.autograd.functional.jvp(f, tuple(x), tuple(x)),
    "gradient penalty": lambda f, x: torch.vmap(
        torch.func.grad(lambda q: torch.func.grad(lambda y: loss_of(f)(y, *x[1:]))(q).sum())
    )(torch.stack([x[0]] * 2)),
}


@each_kind
@pytest.mark.parametrize("way", SECOND)
def test_second_derivatives_are_refused(kind, way):
    with pytest.raises(ingot.Unsupported, match="double backward"):
        SECOND[way](function_of(kind), operands())


def test_derivatives_under_a_mask_are_right_or_refused():
    """torch.ops.ingot.attention_masked, which compiled models of transformers call."""
    pytest.importorskip("ingot.transformers")
    inputs = [x[:, :2, :4].contiguous() for x in operands()]
    mask = torch.ones(4, 4).tril().bool().expand(3, 1, 4, 4)

    def f(q, k, v):
        return torch.ops.ingot.attention_masked(q, k, v, mask, None, None, "highest")

    def wanted(q, k, v):
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return o.transpose(1, 2)

    got = torch.func.grad(loss_of(f), argnums=(0, 1, 2))(*inputs)
    for a, b in zip(got, gradients_by_autograd(wanted, inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    with pytest.raises(ingot.Unsupported, match="forward-mode"):
        torch.func.jvp(f, tuple(inputs), tuple(inputs))
    with pytest.raises(ingot.Unsupported, match="double backward"):
        twice_by_autograd(f, inputs)
