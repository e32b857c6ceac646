"""ingot.torch.scaled_dot_product_attention, sdpa() and the flash registry: what is routed, what is
refused, what falls back."""

import importlib

import ingot
import ingot.torch
import pytest
import torch
import torch.nn.functional as F
from ingot import _torch_registry, _torch_sdpa
from torch.nn.attention.bias import causal_lower_right, causal_upper_left

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
on_devices = pytest.mark.parametrize("device", DEVICES)
drop_in = ingot.torch.scaled_dot_product_attention


def tensors(*shape, requires_grad=False):
    generator = torch.Generator().manual_seed(3)
    return tuple(
        torch.randn(*shape, generator=generator).requires_grad_(requires_grad) for _ in range(3)
    )


@on_devices
@pytest.mark.parametrize("rank", [2, 3, 5])
def test_any_rank(rank, device):
    shape = (2, 3, 4, 10, 8)[5 - rank :]
    q, k, v = (torch.randn(shape, device=device) for _ in range(3))
    want = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(drop_in(q, k, v), want)


BROADCAST = {
    "batch of k": ((3, 4, 5, 8), (1, 4, 6, 8), (1, 4, 6, 8), False),
    "batch of q": ((1, 4, 5, 8), (3, 4, 6, 8), (3, 4, 6, 8), False),
    "heads of k": ((3, 4, 5, 8), (3, 1, 6, 8), (3, 1, 6, 8), False),
    "heads of q": ((3, 1, 5, 8), (3, 4, 6, 8), (3, 4, 6, 8), False),
    "v alone": ((3, 4, 5, 8), (3, 4, 6, 8), (1, 1, 6, 8), False),
    "ranks": ((3, 4, 5, 8), (4, 6, 8), (6, 8), False),
    "five": ((2, 3, 4, 5, 8), (1, 3, 4, 6, 8), (2, 1, 4, 6, 8), False),
    "batch in GQA": ((3, 4, 5, 8), (1, 2, 6, 8), (1, 2, 6, 8), True),
    "rank 3 in GQA": ((4, 5, 8), (2, 6, 8), (2, 6, 8), True),
}


@pytest.mark.parametrize("shapes", BROADCAST.values(), ids=BROADCAST.keys())
def test_broadcasts_as_pytorch_does(shapes):
    *shapes, enable_gqa = shapes
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    got, want = (
        f(*inputs, enable_gqa=enable_gqa) for f in (drop_in, F.scaled_dot_product_attention)
    )
    torch.testing.assert_close(got, want)
    dout = torch.randn_like(want)
    pairs = zip(*(torch.autograd.grad(o, inputs, dout) for o in (got, want)), strict=True)
    for gradient, wish in pairs:
        torch.testing.assert_close(gradient, wish, atol=1e-5, rtol=1e-4)


def test_causal_bias():
    q = torch.randn(1, 2, 9, 16)
    k, v = torch.randn(1, 2, 14, 16), torch.randn(1, 2, 14, 16)
    for bias in (causal_upper_left(9, 14), causal_lower_right(9, 14)):
        want = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        torch.testing.assert_close(drop_in(q, k, v, attn_mask=bias), want)
    with pytest.raises(ingot.Unsupported, match="attn_mask: must be of 9 queries and 14 keys"):
        drop_in(q, k, v, attn_mask=causal_lower_right(8, 14))


REFUSED = [
    ({"dropout_p": 1.0}, "dropout_p: must be 0 or from 2\\^-16 to 1 - 2\\^-16, got 1.0"),
    ({"scale": 0.0}, "scale: must not be 0"),
    ({"scale": 1e-50}, "scale"),
]


@pytest.mark.parametrize("options,text", REFUSED, ids=[str(r[0])[:20] for r in REFUSED])
def test_nothing_falls_back_silently(options, text):
    q, k, v = tensors(1, 2, 5, 8)
    with pytest.raises((ingot.Unsupported, ingot.InvalidArgument), match=text):
        drop_in(q, k, v, **options)
    before = sum(ingot.torch.fallbacks().values())
    drop_in(q, k, v, **options, fallback="torch")
    assert sum(ingot.torch.fallbacks().values()) == before + 1
    with pytest.raises(ingot.InvalidArgument, match="fallback: must be"):
        drop_in(q, k, v, fallback="flash")
    with pytest.raises(ingot.Unsupported, match="must have leading dimensions that broadcast"):
        drop_in(q[:, [0, 1, 0, 1]], k, v)


@pytest.mark.parametrize("scale", [1e-50, 1e-38, 2e37, float("nan")])
def test_factors_are_looked_at_before_there_are_numbers(scale):
    """As torch.compile does it, so that what it compiles has the fallback in it."""
    q = torch.ones(1, 2, 5, 8, device="meta")
    for function in (ingot.torch.attention, drop_in):
        with pytest.raises(ingot.InvalidArgument, match="^scale: its magnitude must be from 1e-37"):
            function(q, q, q, scale=scale)
    before = ingot.torch.fallbacks()
    drop_in(q, q, q, scale=scale, fallback="torch")
    assert ingot.torch.fallbacks() != before


def test_counts_of_fallbacks_are_by_reason_without_values():
    q, k, v = tensors(1, 2, 5, 8)
    for p in (1.0, 1 - 2.0**-20):
        drop_in(q, k, v, dropout_p=p, fallback="torch")
    counts = ingot.torch.fallbacks()
    assert counts["dropout_p: must be 0 or from 2^-16 to 1 - 2^-16"] >= 2
    assert not any("1.0" in reason for reason in counts)


def test_fallback_also_where_the_device_refuses(monkeypatch):
    def refuse(*_):
        raise ingot.Unsupported("unsupported: head_dim 8 on this device")

    monkeypatch.setattr(_torch_sdpa, "attention_forward", refuse)
    q, k, v = tensors(1, 2, 5, 8)
    with pytest.raises(ingot.Unsupported, match="on this device"):
        drop_in(q, k, v)
    got = drop_in(q, k, v, fallback="torch")
    torch.testing.assert_close(got, F.scaled_dot_product_attention(q, k, v))


def nested(layout):
    parts = [torch.randn(3, 4, 8), torch.randn(5, 4, 8)]
    if layout is torch.strided:
        parts = [x.transpose(0, 1).contiguous() for x in parts]
        return torch.nested.nested_tensor(parts, layout=layout)
    return torch.nested.nested_tensor(parts, layout=layout).transpose(1, 2)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_pytorch_computes_what_ingot_has_no_shape_for():
    q = torch.randn(2, 4, 3, 8)
    for layout in (torch.jagged, torch.strided):
        x = nested(layout)
        with pytest.raises(ingot.Unsupported, match="query: must not be a nested tensor"):
            drop_in(x, x, x)
        with pytest.raises(ingot.Unsupported, match="q: must not be nested"):
            ingot.torch.attention(x, x, x)
        got = drop_in(x, x, x, fallback="torch")
        want = F.scaled_dot_product_attention(x, x, x)
        for a, b in zip(got.unbind(), want.unbind(), strict=True):
            torch.testing.assert_close(a, b)
    for heads, heads_kv, enable_gqa in ((0, 0, False), (4, 0, True)):
        args = (q[:, :heads], q[:, :heads_kv], q[:, :heads_kv])
        with pytest.raises(ingot.Unsupported, match="must have heads"):
            drop_in(*args, enable_gqa=enable_gqa)
        assert drop_in(*args, enable_gqa=enable_gqa, fallback="torch").shape == args[0].shape


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_autocast_casts_as_pytorchs_own(dtype, device):
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("skipped: float64 is for the CPU's reference")
    q, k, v = (x.to(device, dtype) for x in tensors(1, 2, 5, 8))
    with torch.autocast(device, dtype=torch.bfloat16):
        want = F.scaled_dot_product_attention(q, k, v)
        got = drop_in(q, k, v)
        with ingot.torch.sdpa():
            routed = F.scaled_dot_product_attention(q, k, v)
        assert ingot.torch.attention(q, k, v).dtype == dtype
    assert got.dtype == routed.dtype == want.dtype
    torch.testing.assert_close(got, want, atol=2e-2, rtol=0)


@on_devices
def test_context_manager_routes_and_restores(device):
    own = F.scaled_dot_product_attention
    layer = torch.nn.MultiheadAttention(32, 4, batch_first=True, device=device)
    x = torch.randn(2, 7, 32, device=device)
    want, _ = layer(x, x, x, need_weights=False)

    with ingot.torch.sdpa():
        assert F.scaled_dot_product_attention is not own
        got, _ = layer(x, x, x, need_weights=False)
        torch.testing.assert_close(got, want)
        with pytest.raises(ingot.Unsupported):
            F.scaled_dot_product_attention(x, x, x, dropout_p=1.0)
    assert F.scaled_dot_product_attention is own
    with pytest.raises(ingot.InvalidArgument, match="fallback: must be"), ingot.torch.sdpa(True):
        pass
    assert F.scaled_dot_product_attention is own


def test_overlapping_contexts_restore_at_the_last_end():
    own, q = F.scaled_dot_product_attention, torch.randn(1, 1, 2, 8)
    strict, lenient = ingot.torch.sdpa(), ingot.torch.sdpa("torch")
    strict.__enter__()
    lenient.__enter__()
    F.scaled_dot_product_attention(q, q, q, dropout_p=1.0)  # the one entered last decides
    kept = F.scaled_dot_product_attention
    lenient.__exit__(None, None, None)
    with pytest.raises(ingot.Unsupported):
        F.scaled_dot_product_attention(q, q, q, dropout_p=1.0)
    strict.__exit__(None, None, None)
    assert F.scaled_dot_product_attention is own
    kept(q, q, q, dropout_p=1.0)  # PyTorch's own for who has kept the routed one

    first, second = ingot.torch.sdpa(), ingot.torch.sdpa()
    for call in (first.__enter__, second.__enter__):
        call()
    for context in (first, second):  # the one entered first is left first
        context.__exit__(None, None, None)
    assert F.scaled_dot_product_attention is own
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_patch_over_the_context_is_left_alone(monkeypatch):
    own, q = F.scaled_dot_product_attention, torch.randn(1, 1, 2, 8)
    context = ingot.torch.sdpa()
    context.__enter__()
    routed = F.scaled_dot_product_attention
    try:
        F.scaled_dot_product_attention = patch = lambda *args, **named: routed(*args, **named)
        context.__exit__(None, None, None)
        assert F.scaled_dot_product_attention is patch
        patch(q, q, q, dropout_p=1.0)
    finally:
        F.scaled_dot_product_attention = own


@pytest.fixture
def calls(monkeypatch):
    """What attention_forward of ingot has been called with by the drop-in."""
    seen, forward = [], _torch_sdpa.attention_forward

    def counted(*arguments):
        seen.append(arguments)
        return forward(*arguments)

    monkeypatch.setattr(_torch_sdpa, "attention_forward", counted)
    return seen


def test_the_fast_path_of_encoders_does_not_go_past_the_context(calls):
    layer = torch.nn.TransformerEncoderLayer(32, 4, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2).eval()
    attention = torch.nn.MultiheadAttention(32, 4, batch_first=True).eval()
    x = torch.randn(2, 9, 32)
    with torch.no_grad():
        want = encoder(x), attention(x, x, x, need_weights=False)[0]
        with ingot.torch.sdpa():
            got = encoder(x), attention(x, x, x, need_weights=False)[0]
    assert len(calls) == 3
    assert torch.backends.mha.get_fastpath_enabled()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    padding = torch.arange(9).expand(2, 9) >= torch.tensor([[9], [6]])
    with torch.no_grad():
        want = encoder(x, src_key_padding_mask=padding)
        with ingot.torch.sdpa():
            got = encoder(x, src_key_padding_mask=padding)
    torch.testing.assert_close(got[~padding], want[~padding], atol=1e-5, rtol=1e-4)
    assert len(calls) == 3  # the masked ones go another way


def test_the_module_can_be_loaded_again():
    again = importlib.reload(ingot.torch)
    q, k, v = tensors(1, 2, 5, 8)
    torch.testing.assert_close(again.attention(q, k, v), F.scaled_dot_product_attention(q, k, v))


@pytest.fixture
def registry():
    """activate(fallback) for the flash registry, which is as before after the test."""
    if not ingot.torch.register_flash_attention():
        pytest.skip("skipped: this PyTorch has no flash registry")
    from torch.nn.attention import activate_flash_attention_impl, restore_flash_attention_impl

    def activate(fallback=None):
        ingot.torch.register_flash_attention(fallback)
        activate_flash_attention_impl("ingot")

    yield activate
    restore_flash_attention_impl(_raise_warn=False)


ignore_overriding = pytest.mark.filterwarnings("ignore:Warning only once for all operators")


def flash_step(inputs, **options):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        o = F.scaled_dot_product_attention(*inputs, **options)
    return (o, *torch.autograd.grad(o.square().sum(), inputs))


@on_devices
@ignore_overriding
def test_flash_registry(device, registry, monkeypatch):
    from torch.nn.attention import restore_flash_attention_impl

    calls, run = [], _torch_registry.run
    monkeypatch.setattr(_torch_registry, "run", lambda *a: calls.append(a) or run(*a))
    dtype = torch.float32 if device == "cpu" else torch.float16  # what the flash path takes
    inputs = [x.to(device, dtype).requires_grad_() for x in tensors(1, 4, 20, 16)]
    want = flash_step(inputs, is_causal=True)
    assert not calls
    registry()
    got = flash_step(inputs, is_causal=True)
    assert len(calls) == 2
    restore_flash_attention_impl()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=5e-6 if device == "cpu" else 4e-3, rtol=1e-3)
    flash_step(inputs)
    assert len(calls) == 2


@ignore_overriding
def test_flash_registry_with_a_mask_is_computed_and_falls_back(registry):
    inputs = tensors(2, 4, 9, 8, requires_grad=True)
    mask = torch.arange(9) < torch.tensor([9, 5]).view(2, 1, 1, 1)
    want = flash_step(inputs, attn_mask=mask)
    layer = torch.nn.TransformerEncoderLayer(32, 4, batch_first=True, dropout=0.0)
    encoder, x = torch.nn.TransformerEncoder(layer, 1), torch.randn(2, 9, 32)
    padding = ~mask.view(2, 9)
    want_encoded = encoder(x, src_key_padding_mask=padding)
    registry()
    for a, b in zip(flash_step(inputs, attn_mask=mask), want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    encoded = encoder(x, src_key_padding_mask=padding)
    torch.testing.assert_close(encoded, want_encoded, atol=1e-5, rtol=1e-4)
    wide = [x.double().detach().requires_grad_() for x in inputs]
    want = flash_step(wide)
    with pytest.raises(ingot.InvalidArgument, match="bias.dtype: must be float32"):
        flash_step(wide, attn_mask=mask)
    with pytest.raises(ingot.InvalidArgument, match="fallback: must be"):
        registry("flash")
    registry("torch")
    everything = torch.ones_like(mask)
    for a, b in zip(flash_step(wide, attn_mask=everything), want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    assert ingot.torch.fallbacks()["bias.dtype: must be float32 or float16 or bfloat16"] >= 1


@ignore_overriding
def test_flash_registry_in_a_compiled_training_step(registry):
    inputs = tensors(2, 4, 9, 8, requires_grad=True)
    want = flash_step(inputs, is_causal=True)
    registry()
    compiled = torch.compile(F.scaled_dot_product_attention, backend="aot_eager")
    o = compiled(*inputs, is_causal=True)
    got = (o, *torch.autograd.grad(o.square().sum(), inputs))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "heads inside": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_flash_registry_has_pytorchs_layouts(layout, dtype):
    """The sizes, strides and types of the results are those that compiled code expects."""
    q, k, v = (layout(x.to(dtype)) for x in tensors(2, 4, 9, 8))
    aten, registry = torch.ops.aten, _torch_registry
    pairs = [(registry._cpu_forward, aten._scaled_dot_product_flash_attention_for_cpu)]
    if dtype != torch.float64:
        pairs.append((registry._cuda_forward, aten._scaled_dot_product_flash_attention))
    for forward, operator in pairs:
        backward = getattr(registry, forward.__name__.replace("forward", "backward"))
        got = forward(q, k, v)
        metas = [x.to("meta") for x in (q, k, v)]
        same_layout(got, operator(*metas))
        more = (0.0, False) if len(got) == 2 else (*got[2:6], 0.0, False, *got[6:8])
        gradients = backward(torch.ones_like(got[0]), q, k, v, *got[:2], *more)
        meta_more = [x.to("meta") if isinstance(x, torch.Tensor) else x for x in more]
        saved = [x.to("meta") for x in (got[0], q, k, v, *got[:2])]
        operator_backward = getattr(aten, f"{operator._qualified_op_name.split('::')[1]}_backward")
        same_layout(gradients, operator_backward(*saved, *meta_more))


def same_layout(got, want):
    for a, b in zip(got, want, strict=True):
        if isinstance(b, torch.Tensor):
            assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)
        else:
            assert a == b
