"""ALiBi, bias, mask, sinks, prefix and dropout in ingot.torch: values, gradients, transformations.

float32 runs on device cpu, float64 on device reference."""

import ingot
import ingot.torch
import plain_parts
import pytest
import torch
from torch.utils.checkpoint import checkpoint

DTYPES = [torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["cpu", "reference"])
OPS = torch.ops.ingot
OPTIONS = (2, -1, -1, 0.0, 0.0, 0, 0)
SHAPES = {"q": (2, 4, 9, 16), "k": (2, 2, 12, 16), "v": (2, 2, 12, 8)}


def random(*shape, dtype=torch.float32, seed=1):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def operands(dtype=torch.float32):
    return {
        name: random(*shape, dtype=dtype, seed=i).requires_grad_()
        for i, (name, shape) in enumerate(SHAPES.items())
    }


def parts():
    return {
        "alibi_slopes": torch.tensor([0.5, 0.25, 0.1, 0.0]),
        "bias": random(4, 1, 12, seed=7).requires_grad_(),
        "mask": random(2, 1, 9, 12, seed=8) > -1,
        "sinks": random(4, seed=9).requires_grad_(),
        "dropout": 0.3,
        "seed": (5, 6),
        "prefix_len": torch.tensor([2, 5], dtype=torch.int32),
        "causal": "bottom_right",
    }


def in_numpy(options):
    return {
        name: x.detach().numpy() if isinstance(x, torch.Tensor) else x
        for name, x in options.items()
    }


@each_dtype
def test_all_parts_and_their_gradients_equal_the_textbook(dtype):
    tensors, options = operands(dtype), parts()
    o, lse = ingot.torch.attention(*tensors.values(), **options, return_lse=True)
    numbers = in_numpy(options)
    want, want_lse = plain_parts.attention(*in_numpy(tensors).values(), **numbers)
    torch.testing.assert_close(o.double(), torch.from_numpy(want), atol=1e-5, rtol=0)
    torch.testing.assert_close(lse.double(), torch.from_numpy(want_lse), atol=1e-5, rtol=0)
    dout = random(*o.shape, dtype=dtype, seed=4)
    inputs = tensors | {name: options[name] for name in ("bias", "sinks")}
    got = torch.autograd.grad(o, list(inputs.values()), dout)
    want = plain_parts.attention(*in_numpy(tensors).values(), dout.numpy(), **numbers)
    for x, (name, gradient) in zip(got, want.items(), strict=True):
        gradient = torch.from_numpy(gradient)
        torch.testing.assert_close(x.double(), gradient, atol=2e-5, rtol=1e-4, msg=name)


def test_the_door_of_all_packages_leads_here():
    tensors, options = operands(), parts()
    want, lse = ingot.torch.attention(*tensors.values(), **options, return_lse=True)
    assert torch.equal(ingot.attention(*tensors.values(), **options), want)
    inputs = [*tensors.values(), options["bias"], options["sinks"]]
    wanted = torch.autograd.grad(want, inputs, want.detach())
    got = ingot.attention_backward(
        *tensors.values(), want, lse, want, **options, bias_grad=True, sinks_grad=True
    )
    for x, y in zip(got, wanted, strict=True):
        assert torch.equal(x, y)
    assert len(ingot.attention_backward(*tensors.values(), want, lse, want, **options)) == 3


def test_only_what_is_asked_for_has_a_gradient():
    tensors, options = operands(), parts()
    q, k, v = (x.detach() for x in tensors.values())
    options["bias"].requires_grad_(False)
    ingot.torch.attention(q, k, v, **options).sum().backward()
    assert options["sinks"].grad is not None and options["bias"].grad is None
    options["alibi_slopes"].requires_grad_()
    with pytest.raises(ingot.Unsupported, match="alibi_slopes: must not require gradients"):
        ingot.torch.attention(q, k, v, **options)
    with torch.no_grad():
        ingot.torch.attention(q, k, v, **options)


def test_a_gradient_of_lse_goes_through_the_parts():
    tensors, options = operands(), parts()
    inputs = [*tensors.values(), options["bias"], options["sinks"]]
    o, lse = ingot.torch.attention(*tensors.values(), **options, return_lse=True)
    weights = random(*lse.shape, seed=11)
    got = torch.autograd.grad((lse * weights).sum(), inputs)
    h = 1e-2
    for x, gradient in zip(inputs, got, strict=True):
        step = random(*x.shape, seed=12)
        values = []
        for sign in (1, -1):
            moved = {
                n: y.detach() + sign * h * step if y is x else y.detach()
                for n, y in (tensors | {n: options[n] for n in ("bias", "sinks")}).items()
            }
            numbers = in_numpy(options | {n: moved[n] for n in ("bias", "sinks")})
            operands_ = [moved[n].double().numpy() for n in "qkv"]
            values.append((plain_parts.attention(*operands_, **numbers)[1] * weights.numpy()).sum())
        slope = (values[0] - values[1]) / (2 * h)
        assert abs((gradient * step).sum().item() - slope) < 2e-3 * max(1, abs(slope))


@pytest.mark.parametrize("sinks", [None, torch.ones(4)], ids=["plain", "parts"])
def test_a_gradient_of_lse_in_float64_is_refused_not_zero(sinks):
    q, k, v = operands(torch.float64).values()
    _, lse = ingot.torch.attention(q, k, v, sinks=sinks, return_lse=True)
    with pytest.raises(ingot.Unsupported, match="^return_lse: the gradient of lse needs a q of 16"):
        lse.sum().backward()


@pytest.mark.parametrize("which", ["forward", "backward"])
def test_opcheck(which):
    tensors, options = operands(), parts()
    given = [options[n] for n in ("alibi_slopes", "bias", "mask", "sinks", "prefix_len")]
    more = (*given, torch.tensor([5, 6]), 0.3)
    forward = OPS.attention_parts_forward
    if which == "forward":
        torch.library.opcheck(forward, (*tensors.values(), *more, *OPTIONS))
        return
    o, lse = forward(*tensors.values(), *more, *OPTIONS)
    saved = [x.detach() for x in (*tensors.values(), o, lse, o)]
    more = [x.detach() if isinstance(x, torch.Tensor) else x for x in more]
    for wanted in ((True, True), (False, True), (False, False)):
        arguments = (*saved, *more, *wanted, *OPTIONS)
        torch.library.opcheck(OPS.attention_parts_backward, arguments)


def test_dropout_draws_from_the_generator():
    q = random(1, 2, 20, 8)
    draw = lambda: ingot.torch.attention(q, q, q, dropout=0.5)  # noqa: E731
    torch.manual_seed(3)
    first, second = draw(), draw()
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(draw(), first) and torch.equal(draw(), second)


def test_a_seed_may_be_a_tensor():
    q = random(1, 2, 20, 8)
    want = ingot.torch.attention(q, q, q, dropout=0.5, seed=(7, 2**64 - 1))
    seed = torch.tensor([7, -1])
    assert torch.equal(ingot.torch.attention(q, q, q, dropout=0.5, seed=seed), want)
    for wrong in (seed.int(), seed[:1], seed.float(), seed[None]):
        with pytest.raises(ingot.InvalidArgument, match="^seed: must be an integer, a pair of"):
            ingot.torch.attention(q, q, q, dropout=0.5, seed=wrong)


def test_checkpointing_takes_the_same_weights_again():
    tensors = operands()
    torch.manual_seed(1)
    want = ingot.torch.attention(*tensors.values(), dropout=0.5)
    gradients = torch.autograd.grad(want.square().sum(), list(tensors.values()))
    torch.manual_seed(1)
    run = lambda *x: ingot.torch.attention(*x, dropout=0.5)  # noqa: E731
    got = checkpoint(run, *tensors.values(), use_reentrant=False)
    assert torch.equal(got, want)
    again = torch.autograd.grad(got.square().sum(), list(tensors.values()))
    for x, y in zip(again, gradients, strict=True):
        assert torch.equal(x, y)


def test_a_compiled_function_has_one_graph_and_draws_in_each_run():
    tensors, options = operands(), parts()
    inputs = [*tensors.values(), options["bias"], options["sinks"]]
    del options["seed"]

    def step(q, k, v):
        return ingot.torch.attention(q, k, v, **options)

    torch._dynamo.reset()
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    torch.manual_seed(2)
    first, second = compiled(*inputs[:3]), compiled(*inputs[:3])
    assert not torch.equal(first, second)
    torch.manual_seed(2)
    want = step(*inputs[:3])
    assert torch.equal(first, want)
    got = torch.autograd.grad(first.square().sum(), inputs)
    for x, y in zip(got, torch.autograd.grad(want.square().sum(), inputs), strict=True):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("batched", ["q", "k", "v", "alibi_slopes", "bias", "mask", "sinks"])
def test_vmap_is_a_call_for_each_sample(batched):
    options = parts()
    given = {name: x.detach() for name, x in operands().items()}
    given |= {
        name: options.pop(name).detach() for name in ("alibi_slopes", "bias", "mask", "sinks")
    }
    samples = torch.stack([given[batched], given[batched].flip(-1)])
    of_one = lambda x: ingot.torch.attention(**(given | {batched: x}), **options)  # noqa: E731
    got = torch.vmap(of_one)(samples)
    assert torch.equal(got, torch.stack([of_one(x) for x in samples]))
    if batched in ("alibi_slopes", "mask"):
        return
    gradient = torch.func.grad(lambda x: of_one(x).square().sum())
    got = torch.vmap(gradient)(samples)
    torch.testing.assert_close(got, torch.stack([gradient(x) for x in samples]), atol=0, rtol=0)


def test_second_derivatives_and_forward_mode_are_refused():
    tensors, options = operands(), parts()
    q, k, v = tensors.values()
    o = ingot.torch.attention(q, k, v, **options)
    (gradient,) = torch.autograd.grad(o.sum(), options["bias"], create_graph=True)
    with pytest.raises(ingot.Unsupported, match="double backward"):
        gradient.sum().backward()
    options["bias"] = options["bias"].detach()
    with pytest.raises(ingot.Unsupported, match="forward-mode"):
        torch.func.jvp(
            lambda x: ingot.torch.attention(q, k, v, **(options | {"bias": x})),
            (options["bias"],),
            (options["bias"],),
        )


WRONG = {
    "alibi_slopes": [
        ("dtype", lambda x: x.half()),
        ("shape", lambda x: x[:3]),
    ],
    "bias": [
        ("dtype", lambda x: x.double()),
        ("shape", lambda x: x[:, :, 1:]),
        (" have from 2 to 4", lambda x: x[0, 0]),
    ],
    "mask": [("dtype: must be bool \\(bias", lambda x: x.float()), ("dtype", lambda x: x.byte())],
    "sinks": [("shape", lambda x: x[None]), ("dtype", lambda x: x.half())],
    "prefix_len": [("dtype", lambda x: x.long()), ("shape", lambda x: x[:1])],
}


@pytest.mark.parametrize("meta", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_parts_raise_before_anything_runs(name, meta):
    """In the fake kernels of compiled functions, too."""
    for text, make in WRONG[name]:
        tensors, options = operands(), parts()
        options[name] = make(options[name].detach())
        if meta:
            tensors = {n: x.to("meta") for n, x in tensors.items()}
            options |= {n: x.to("meta") for n, x in options.items() if torch.is_tensor(x)}
        with pytest.raises(ingot.InvalidArgument, match=f"^{name}.*{text.split(':')[0]}"):
            ingot.torch.attention(*tensors.values(), **options)


@pytest.mark.parametrize("name", WRONG)
def test_parts_on_another_device_are_refused(name):
    tensors, options = operands(), parts()
    options[name] = options[name].detach().to("meta")
    with pytest.raises(ingot.InvalidArgument, match=f"^{name}: must be on the device of q, cpu"):
        ingot.torch.attention(*tensors.values(), **options)


def test_storage_that_is_too_small_is_refused():
    tensors, options = operands(), parts()
    bias = random(4, 9, 12)
    bias.untyped_storage().resize_(16)
    with pytest.raises(ingot.InvalidArgument, match="^bias: must have a storage of"):
        ingot.torch.attention(*tensors.values(), **(options | {"bias": bias}))


def test_parts_of_a_batch_have_no_parts_of_the_score_yet():
    q, k, v = operands().values()
    with pytest.raises(ingot.Unsupported, match="^sinks: must be left out, parts of a batch"):
        ingot.torch.ragged_attention(q, k, v, [], sinks=torch.ones(4))
