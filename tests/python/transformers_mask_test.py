"""A mask of transformers is computed as it says, by its structure or as a tensor, or refused with
the reason."""

from random import Random

import ingot
import pytest
import torch
from ingot._transformers_plan import plan_of_tensor
from ingot.transformers import attention_forward, attention_mask
from plain_torch import dense_attention
from transformers import masking_utils

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(autouse=True, params=DEVICES)
def device(request, one_thread):
    """The device that tensors are made on."""
    torch.manual_seed(5)
    with torch.device(request.param):
        yield request.param


def some_mask(random, batch, queries, keys):
    """A mask of the kinds that models make, of which about one in thirty is none of ranges."""
    own = random.randint(-3, 6)
    query = torch.arange(queries)[:, None] + own
    key = torch.arange(keys)[None]
    kind = random.randrange(8)
    masks = []
    for _ in range(batch):
        mask = torch.ones(queries, keys, dtype=torch.bool)
        if kind & 1:
            mask &= key <= query
        if kind & 2:
            mask &= key > query - random.randint(1, 5)
        if kind & 4:
            mask &= key // 4 == query // 4
        if random.random() < 0.3:
            mask |= (key < 3) & (query < 3)
        pad = random.choice(["none", "left", "right", "gaps", "noise", "packed"])
        if pad == "left":
            mask &= key >= random.randint(0, keys)
        if pad == "right":
            mask &= key < random.randint(0, keys)
        if pad == "gaps":
            mask &= torch.tensor([random.random() < 0.8 for _ in range(keys)])
        if pad == "noise" and random.random() < 0.2:
            mask &= torch.rand(queries, keys) < 0.9
        if pad == "packed":
            starts = torch.tensor([random.random() < 0.3 for _ in range(keys + queries + 10)])
            sequence = starts.cumsum(0)
            mask &= sequence[(query + 3).clamp(min=0)] == sequence[key + 3]
        masks.append(mask)
    return torch.stack(masks)[:, None]


def test_any_mask_is_computed_as_it_says(device):
    random = Random(1)
    module = torch.nn.Module()
    structured = 0
    for _ in range(120):
        batch, queries, keys = random.randint(1, 3), random.randint(1, 13), random.randint(1, 15)
        mask = some_mask(random, batch, queries, keys).to(device)
        q = torch.randn(batch, 4, queries, 8)
        k, v = torch.randn(2, batch, 2, keys, 8)
        got, _ = attention_forward(module, q, k, v, mask)
        structured += plan_of_tensor(mask) is not None
        want = dense_attention(q, k, v, mask).transpose(1, 2)
        torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=0)
        additive = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
        assert torch.equal(attention_forward(module, q, k, v, additive)[0], got)
    assert 90 < structured < 120


@pytest.mark.parametrize("gradient", ["q", "k", "v"])
def test_gradients_under_a_mask_of_many_parts(gradient):
    i = torch.arange(12)
    mask = (i[None] <= i[:, None]) | ((i[None] // 5 == 1) & (i[:, None] // 5 == 1))
    mask = mask[None, None].repeat(2, 1, 1, 1)
    mask[1, :, :, 3:5] = False
    tensors = {name: torch.randn(2, 2, 12, 8) for name in "qkv"}
    tensors[gradient].requires_grad_()
    want = dense_attention(*tensors.values(), mask).square().sum()
    got = attention_forward(torch.nn.Module(), *tensors.values(), mask)[0].square().sum()
    grads = [torch.autograd.grad(loss, tensors[gradient])[0] for loss in (want, got)]
    torch.testing.assert_close(grads[1], grads[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    "function",
    [
        masking_utils.causal_mask_function,
        masking_utils.bidirectional_mask_function,
        masking_utils.sliding_window_causal_mask_function(5),
        masking_utils.sliding_window_bidirectional_mask_function(5),
    ],
)
def test_a_known_predicate_is_the_same_as_evaluated(function, padded):
    padding = None
    if padded:
        padding = torch.ones(3, 20, dtype=torch.bool)
        padding[1, :4] = padding[2, 9:12] = False
    for queries, offset, start in ((20, 0, 0), (7, 13, 0), (1, 19, 0), (9, 14, 3), (8, 0, 0)):
        shape = {"batch_size": 3, "q_length": queries, "kv_length": 20 - start, "q_offset": offset}
        shape |= {"kv_offset": start, "attention_mask": padding, "device": torch.empty(0).device}
        known = attention_mask(**shape, mask_function=function)
        evaluated = attention_mask(**shape, mask_function=lambda *x: function(*x))
        q, k, v = torch.randn(3, 2, queries, 8), *torch.randn(2, 3, 2, 20 - start, 8)
        got = [attention_forward(torch.nn.Module(), q, k, v, m)[0] for m in (known, evaluated)]
        torch.testing.assert_close(*got, atol=1e-6, rtol=0)
        seen = masking_utils.sdpa_mask(**shape, mask_function=function, allow_is_causal_skip=False)
        want = dense_attention(q, k, v, seen).transpose(1, 2)
        torch.testing.assert_close(got[0].double(), want, atol=1e-5, rtol=0)


def test_a_long_mask_takes_no_square_of_memory():
    n = 1 << 18
    mask = attention_mask(
        1, n, n, mask_function=masking_utils.sliding_window_causal_mask_function(4096)
    )
    assert mask.shape == (1, 1, n, n)
    assert [call.options() for call in mask.plan.calls] == [
        {"causal": "bottom_right", "window": (4095, 0)}
    ]


UNSTRUCTURED = {
    "differs by head": lambda: torch.rand(1, 2, 5, 5) < 0.8,
    "keys with a gap": lambda: torch.tensor(
        [[True, True, False, True, True], [True] * 5] + [[True] * 5] * 3
    )[None, None],
    "a position bias": lambda: torch.randn(1, 1, 5, 5),
    "a position bias of each head": lambda: torch.randn(1, 2, 5, 5, dtype=torch.bfloat16),
}


@pytest.mark.parametrize(
    "name,compiled",
    [
        *((name, False) for name in UNSTRUCTURED),
        ("differs by head", True),
        ("a position bias", True),
    ],
)
def test_a_mask_without_structure_is_computed_as_a_tensor(name, compiled):
    mask, module = UNSTRUCTURED[name](), torch.nn.Module()
    inputs = [x.requires_grad_() for x in torch.randn(3, 2, 2, 5, 8)]
    q, k, v = (x.double() for x in inputs)
    learned = mask.is_floating_point() and "head" not in name
    if learned:
        inputs.append(mask.requires_grad_())
    scores = q @ k.mT * 8**-0.5
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    want = (torch.softmax(scores, -1) @ v).transpose(1, 2)
    torch._dynamo.reset()
    forward = (
        torch.compile(attention_forward, backend="aot_eager") if compiled else attention_forward
    )
    got, _ = forward(module, *inputs[:3], mask)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=0)
    wanted = torch.autograd.grad(want.square().sum(), inputs)
    for x, y in zip(torch.autograd.grad(got.square().sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(x, y, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("padded", [False, True])
def test_sinks_and_a_bias_under_a_mask_with_structure(first, padded):
    """first: keys before it are hidden from all queries, and cut off."""
    mask = torch.ones(2, 1, 5, 7, dtype=torch.bool).tril(2)
    mask[..., :first] = False
    if padded:
        mask[1, ..., first + 1] = False
    bias, sinks = torch.randn(1, 2, 5, 7), torch.randn(2)
    q, k, v = torch.randn(2, 2, 5, 8), *torch.randn(2, 2, 2, 7, 8)
    got, _ = attention_forward(torch.nn.Module(), q, k, v, mask, s_aux=sinks, position_bias=bias)
    scores = (q.double() @ k.double().mT * 8**-0.5 + bias).masked_fill(~mask, -torch.inf)
    sink = sinks.double().view(1, 2, 1, 1).expand(2, 2, 5, 1)
    weights = torch.softmax(torch.cat([scores, sink], -1), -1)[..., :-1]
    want = (weights @ v.double()).transpose(1, 2)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=0)


def test_numbers_of_a_mask_and_a_position_bias_are_added():
    mask, bias = torch.randn(2, 1, 5, 5), torch.randn(1, 2, 5, 5)
    q, k, v = torch.randn(3, 2, 2, 5, 8)
    got, _ = attention_forward(torch.nn.Module(), q, k, v, mask, position_bias=bias)
    scores = q.double() @ k.double().mT * 8**-0.5 + bias + mask
    want = (torch.softmax(scores, -1) @ v.double()).transpose(1, 2)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("additive", [False, True])
def test_a_compiled_model_hands_sinks_a_bias_and_dropout_over(additive):
    mask = torch.rand(2, 1, 5, 5) < 0.7
    if additive:
        mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    parts = {"s_aux": torch.randn(2), "position_bias": torch.randn(1, 2, 5, 5)}
    inputs = [x.requires_grad_() for x in (*torch.randn(3, 2, 2, 5, 8), *parts.values())]
    torch._dynamo.reset()
    results = []
    for compiled in (False, True):
        torch.manual_seed(1)
        run = attention_forward
        if compiled:
            run = torch.compile(run, backend="aot_eager", fullgraph=True)
        o, _ = run(torch.nn.Module(), *inputs[:3], mask, dropout=0.3, **parts)
        results.append([o, *torch.autograd.grad(o.square().sum(), inputs)])
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-4)


def test_a_predicate_without_structure_is_evaluated_once_for_all_layers(monkeypatch):
    calls, own = [], masking_utils.sdpa_mask
    shape = {"batch_size": 2, "q_length": 7, "kv_length": 7, "device": torch.empty(0).device}
    strided = lambda b, h, q, k: (k <= q) & ((q - k) % 3 != 1)  # noqa: E731
    seen = own(**shape, mask_function=strided, allow_is_causal_skip=False)
    mask = attention_mask(**shape, mask_function=strided)
    monkeypatch.setattr(masking_utils, "sdpa_mask", lambda **x: calls.append(1) or own(**x))
    q, k, v = torch.randn(3, 2, 2, 7, 8)
    for _ in range(3):
        got, _ = attention_forward(torch.nn.Module(), q, k, v, mask)
    want = dense_attention(q, k, v, seen).transpose(1, 2)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=0)
    assert len(calls) == 1


REFUSED = {
    "whole numbers": (
        lambda: torch.ones(1, 1, 5, 5, dtype=torch.long),
        "attention_mask: must be of booleans or floats, got torch.int64",
    ),
    "3 dimensions": (lambda: torch.ones(1, 5, 5) > 0, "attention_mask: must be None, a (batch"),
    "another length": (
        lambda: torch.ones(1, 1, 5, 7) > 0,
        "attention_mask: must be for 5 queries and 5 keys, got 5 and 7",
    ),
    "no mask for fewer queries": (
        lambda: None,
        "attention_mask: must be a mask if attention is causal",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mask_is_refused_with_the_reason(name):
    make, text = REFUSED[name]
    queries = 3 if name == "no mask for fewer queries" else 5
    q, k = torch.randn(1, 2, queries, 8), torch.randn(1, 2, 5, 8)
    with pytest.raises((ingot.Unsupported, ingot.InvalidArgument)) as error:
        attention_forward(torch.nn.Module(), q, k, k, make())
    assert str(error.value).startswith(text)


def test_a_mask_that_is_computed_with_is_the_one_of_eager():
    padding = torch.ones(2, 6, dtype=torch.bool)
    padding[1, :2] = False
    shape = {"batch_size": 2, "q_length": 6, "kv_length": 6, "attention_mask": padding}
    shape["device"] = padding.device
    mask, want = attention_mask(**shape), masking_utils.eager_mask(**shape)
    assert mask.shape == want.shape and mask.dtype == want.dtype and mask.dim() == 4
    assert torch.equal(mask + 0, want)
    assert torch.equal(mask[:, :, 2:4], want[:, :, 2:4])
    q, k, v = torch.randn(3, 2, 2, 6, 8)
    attention_forward(torch.nn.Module(), q, k, v, mask)
    mask[:, :, :, 4] = torch.finfo(torch.float32).min  # as some models change it before attention
    got, _ = attention_forward(torch.nn.Module(), q, k, v, mask)
    want[:, :, :, 4] = torch.finfo(torch.float32).min
    expected = dense_attention(q, k, v, want == 0).transpose(1, 2)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=0)


def test_lengths_of_another_batch_are_refused():
    q = torch.randn(2, 2, 6, 8)
    with pytest.raises(ingot.Unsupported, match="cu_seq_lens_q: must be ascending from 0 to"):
        attention_forward(torch.nn.Module(), q, q, q, None, cu_seq_lens_q=torch.tensor([0, 3, 5]))
