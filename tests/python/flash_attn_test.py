"""ingot.compat.flash_attn against its own text: layouts, bottom-right causal, caches."""

import ingot
import ingot.torch
import plain
import pytest
import torch
from ingot.compat.flash_attn import (
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
    flash_attn_with_kvcache,
)


def wanted(q, k, v, **options):
    o, lse = plain.attention(*(x.transpose(1, 2).detach().numpy() for x in (q, k, v)), **options)
    return torch.from_numpy(o).transpose(1, 2).float(), torch.from_numpy(lse).float()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [(-1, -1), (4, 0), (3, 5)], ids=str)
def test_func(causal, window):
    q = torch.randn(2, 12, 4, 16, requires_grad=True)
    k, v = torch.randn(2, 20, 2, 16), torch.randn(2, 20, 2, 16)
    o, lse, probabilities = flash_attn_func(
        q, k, v, causal=causal, window_size=window, softcap=3.0, return_attn_probs=True
    )
    want_o, want_lse = wanted(
        q, k, v, causal="bottom_right" if causal else None, window=window, softcap=3.0
    )
    torch.testing.assert_close(o.detach(), want_o)
    torch.testing.assert_close(lse, want_lse)
    assert probabilities is None
    o.sum().backward()
    assert q.grad.shape == q.shape


def test_packed():
    qkv = torch.randn(2, 9, 3, 4, 16)
    torch.testing.assert_close(
        flash_attn_qkvpacked_func(qkv, causal=True),
        wanted(*qkv.unbind(2), causal="bottom_right")[0],
    )
    kv = torch.randn(2, 11, 2, 2, 16)
    q = torch.randn(2, 9, 4, 16)
    torch.testing.assert_close(
        flash_attn_kvpacked_func(q, kv, softmax_scale=0.4),
        wanted(q, *kv.unbind(2), scale=0.4)[0],
    )
    with pytest.raises(ingot.InvalidArgument, match="qkv: must have shape"):
        flash_attn_qkvpacked_func(q)
    with pytest.raises(ingot.InvalidArgument, match="kv: must have shape"):
        flash_attn_kvpacked_func(q, q)


@pytest.mark.parametrize("causal", [False, True])
def test_varlen(causal):
    q = torch.randn(12, 4, 16, requires_grad=True)
    kv = torch.randn(20, 2, 2, 16, requires_grad=True)
    cu_q, cu_k = torch.tensor([0, 3, 3, 12]), torch.tensor([0, 8, 10, 20])
    o, lse, _ = flash_attn_varlen_kvpacked_func(
        q, kv, cu_q, cu_k, 9, 10, causal=causal, window_size=(5, -1), return_attn_probs=True
    )
    assert o.shape == (12, 4, 16) and lse.shape == (4, 12)
    dout = torch.randn_like(o)
    got = torch.autograd.grad(o, (q, kv), dout)
    for rows, cols in ((slice(0, 3), slice(0, 8)), (slice(3, 12), slice(10, 20))):
        part = (q[None, rows], kv[None, cols])
        want = flash_attn_kvpacked_func(*part, causal=causal, window_size=(5, -1))
        assert torch.equal(o[rows], want[0])
        want_q, want_kv = torch.autograd.grad(want, (q, kv), dout[None, rows])
        assert torch.equal(got[0][rows], want_q[rows])
        assert torch.equal(got[1][cols], want_kv[cols])
    assert not got[1][8:10].any(), "keys that no query sees"


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_varlen_packed_and_rewritten(mode):
    with mode():
        check_varlen_packed_and_rewritten()


def check_varlen_packed_and_rewritten():
    qkv = torch.randn(12, 3, 4, 16)
    ends = torch.tensor([0, 3, 12])
    for first in (3, 5):  # what was read from a tensor is not kept when that is written to
        ends[1] = first
        o = flash_attn_varlen_qkvpacked_func(qkv, ends, 9)
        for part in (slice(0, first), slice(first, 12)):
            want, _ = wanted(*(x[None, part] for x in qkv.unbind(1)))
            torch.testing.assert_close(o[part], want[0])


def test_varlen_arguments():
    x = torch.randn(6, 2, 8)
    ends = torch.tensor([0, 6])
    with pytest.raises(ingot.InvalidArgument, match="q: must have 3 dimensions .* got 4"):
        flash_attn_varlen_func(x[None], x, x, ends, ends, 6, 6)
    with pytest.raises(ingot.InvalidArgument, match="cu_seqlens_q: must begin with 0, got"):
        flash_attn_varlen_func(x, x, x, ends + 1, ends, 6, 6)
    with pytest.raises(ingot.InvalidArgument, match="cu_seqlens_k: .* the 1 sequences .* got 2"):
        flash_attn_varlen_func(x, x, x, ends, torch.tensor([0, 2, 6]), 6, 6)
    with pytest.raises(ingot.InvalidArgument, match="keys must be from 0 to 6, .* got 0 to 7"):
        flash_attn_varlen_func(x, x, x, ends, torch.tensor([0, 7]), 6, 6)
    with pytest.raises(ingot.InvalidArgument, match="qkv: must have shape .total, 3"):
        flash_attn_varlen_qkvpacked_func(x, ends, 6)
    with pytest.raises(ingot.InvalidArgument, match="kv: must have shape .total_k, 2"):
        flash_attn_varlen_kvpacked_func(x, x, ends, ends, 6, 6)
    with pytest.raises(ingot.InvalidArgument, match="blocks: must be six integers a part, got 5"):
        ingot.torch.ragged_attention(x[None], x[None], x[None], [0, 1, 0, 6, 0])
    shared = [0, 1, 0, 1, 0, 5, 0, 1, 1, 2, 4, 8]  # a key
    with pytest.raises(ingot.InvalidArgument, match="blocks: part 1 must .* keys 4 to 8"):
        ingot.torch.ragged_attention(*(x[None].transpose(2, 3) for _ in range(3)), shared)


@pytest.mark.parametrize("lengths", [None, 5, [5, 9]], ids=str)
def test_cache(lengths):
    k_cache, v_cache = torch.randn(2, 16, 2, 8), torch.randn(2, 16, 2, 8)
    q = torch.randn(2, 2, 4, 8)
    new = {} if lengths is None else {"k": torch.randn(2, 2, 2, 8), "v": torch.randn(2, 2, 2, 8)}
    seqlens = torch.tensor(lengths) if isinstance(lengths, list) else lengths
    o, lse = flash_attn_with_kvcache(
        q, k_cache, v_cache, **new, cache_seqlens=seqlens, causal=True, return_softmax_lse=True
    )
    per_entry = [16, 16] if lengths is None else [n + 2 for n in torch.tensor(lengths).expand(2)]
    for i, n in enumerate(per_entry):
        if new:
            torch.testing.assert_close(k_cache[i, n - 2 : n], new["k"][i])
        want_o, want_lse = wanted(
            q[i : i + 1], k_cache[i : i + 1, :n], v_cache[i : i + 1, :n], causal="bottom_right"
        )
        torch.testing.assert_close(o[i : i + 1], want_o)
        torch.testing.assert_close(lse[i : i + 1], want_lse)


def test_cache_batch_idx_and_overflow():
    k_cache, v_cache = torch.randn(4, 6, 1, 8), torch.randn(4, 6, 1, 8)
    q = torch.randn(2, 1, 1, 8)
    o = flash_attn_with_kvcache(q, k_cache, v_cache, cache_batch_idx=torch.tensor([3, 0]))
    torch.testing.assert_close(o[:1], wanted(q[:1], k_cache[3:], v_cache[3:])[0])
    with pytest.raises(ingot.InvalidArgument, match="cache_seqlens: .* the cache's 6, got 6"):
        flash_attn_with_kvcache(q, k_cache[:2], v_cache[:2], k=q, v=q, cache_seqlens=6)


@pytest.mark.parametrize(
    "options", [{"dropout_p": 0.1}, {"alibi_slopes": torch.ones(4)}], ids=["dropout", "alibi"]
)
def test_what_is_not_there_says_so(options):
    q = torch.randn(1, 4, 4, 8)
    with pytest.raises(ingot.Unsupported, match=f"{next(iter(options))}: must be"):
        flash_attn_func(q, q, q, **options)
    with pytest.raises(ingot.InvalidArgument, match="q: must have 4 dimensions"):
        flash_attn_func(q[0], q, q)
    with pytest.raises(ingot.Unsupported, match="block_table: must be None, got a tensor"):
        flash_attn_with_kvcache(q, q, q, block_table=torch.zeros(1, 1))
