"""ingot.compat.flash_attn against its own text: layouts, bottom-right causal, caches."""

import copy

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
    for first in (3, 5):
        ends[1] = first
        o = flash_attn_varlen_qkvpacked_func(qkv, ends, 9)
        for part in (slice(0, first), slice(first, 12)):
            want, _ = wanted(*(x[None, part] for x in qkv.unbind(1)))
            torch.testing.assert_close(o[part], want[0])


def by_set_(ends):
    ends.set_(torch.tensor([0, 3, 12]))


def by_data(ends):
    ends.data = torch.tensor([0, 3, 12])


def by_copy(ends):
    """The copy counts its writes from the start again."""
    ends[1] = 5
    flash_attn_varlen_func(*[torch.randn(12, 2, 8)] * 3, ends, ends, 9, 9)
    ends = copy.deepcopy(ends)
    ends[1] = 3
    return ends


UNSEEN_WRITES = {
    "numpy": lambda ends: ends.numpy().__setitem__(1, 3),
    "dlpack": lambda ends: torch.from_dlpack(ends).__setitem__(1, 3),
    "data[1]": lambda ends: ends.data.__setitem__(1, 3),
    "data": by_data,
    "set_": by_set_,
    "deepcopy": by_copy,
}


@pytest.mark.parametrize("write", UNSEEN_WRITES.values(), ids=UNSEEN_WRITES.keys())
def test_nothing_of_cu_seqlens_is_remembered(write):
    q = torch.randn(12, 2, 8)

    def run(ends):
        return flash_attn_varlen_func(q, q, q, ends, ends, 9, 9)

    ends = torch.tensor([0, 5, 12])
    run(ends)
    written = write(ends)
    assert torch.equal(run(ends if written is None else written), run(torch.tensor([0, 3, 12])))
    assert not [name for name in vars(ends) if "ingot" in name]


def test_varlen_arguments():
    x = torch.randn(6, 2, 8)
    ends = torch.tensor([0, 6])
    with pytest.raises(ingot.InvalidArgument, match="q: must have 3 dimensions .* got 4"):
        flash_attn_varlen_func(x[None], x, x, ends, ends, 6, 6)
    with pytest.raises(ingot.InvalidArgument, match="cu_seqlens_q: must begin with 0, got"):
        flash_attn_varlen_func(x, x, x, ends + 1, ends, 6, 6)
    with pytest.raises(ingot.InvalidArgument, match="cu_seqlens_k: .* the 1 sequences .* got 2"):
        flash_attn_varlen_func(x, x, x, ends, torch.tensor([0, 2, 6]), 6, 6)
    with pytest.raises(ingot.InvalidArgument, match="cu_seqlens_k: must end at 6 or before, got 7"):
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


SLOPES = {"of heads": (4,), "of entries and heads": (3, 4)}


def with_alibi(q, k, v, slopes, causal):
    """(out, lse) by the formula of flash_attn, in float64."""
    group = q.shape[2] // k.shape[2]
    q, k, v = q.double(), *(x.double().repeat_interleave(group, 2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    row, col = torch.arange(q.shape[1])[:, None], torch.arange(k.shape[1])
    far = row + k.shape[1] - q.shape[1] - col
    scores = scores - slopes.double().view(-1, q.shape[2], 1, 1) * far.abs()
    if causal:
        scores = scores.masked_fill(far < 0, -torch.inf)
    out = torch.einsum("bhqk,bkhd->bqhd", torch.softmax(scores, -1), v)
    return out, torch.logsumexp(scores, -1)


@pytest.mark.parametrize("shape", SLOPES.values(), ids=SLOPES.keys())
@pytest.mark.parametrize("causal", [False, True])
def test_alibi(shape, causal):
    slopes = torch.rand(shape)
    q, k, v = torch.randn(3, 5, 4, 8), *torch.randn(2, 3, 9, 2, 8)
    out, lse, _ = flash_attn_func(
        q, k, v, causal=causal, alibi_slopes=slopes, return_attn_probs=True
    )
    want, want_lse = with_alibi(q, k, v, slopes, causal)
    torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=0)
    torch.testing.assert_close(lse.double(), want_lse, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SLOPES.values(), ids=SLOPES.keys())
def test_alibi_of_sequences_and_of_a_cache(shape):
    slopes = torch.rand(shape)
    of_one = lambda i: slopes if slopes.dim() == 1 else slopes[i : i + 1]  # noqa: E731
    ends_q, ends_k = [0, 3, 3, 7], [0, 4, 6, 11]
    q = torch.randn(9, 4, 8, requires_grad=True)
    k, v = torch.randn(2, 11, 2, 8)
    ends = (torch.tensor(ends_q), torch.tensor(ends_k))
    out, lse, _ = flash_attn_varlen_func(
        q, k, v, *ends, None, None, causal=True, alibi_slopes=slopes, return_attn_probs=True
    )
    for i in range(3):
        rows, cols = slice(*ends_q[i : i + 2]), slice(*ends_k[i : i + 2])
        operands = (x[None] for x in (q[rows], k[cols], v[cols]))
        want, want_lse = with_alibi(*operands, of_one(i), True)
        torch.testing.assert_close(out[rows].double(), want[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(lse[:, rows].double(), want_lse[0], atol=1e-5, rtol=0)
    assert not out[7:].any() and (lse[:, 7:] == -torch.inf).all()
    (gradient,) = torch.autograd.grad(out.square().sum(), q)
    assert gradient[:7].all() and not gradient[7:].any()

    q, k_cache, v_cache = torch.randn(3, 1, 4, 8), *torch.randn(2, 3, 9, 2, 8)
    for lengths in ([4, 9, 6], [5, 5, 5]):
        out = flash_attn_with_kvcache(
            q, k_cache, v_cache, cache_seqlens=torch.tensor(lengths), alibi_slopes=slopes
        )
        for i, n in enumerate(lengths):
            one = slice(i, i + 1)
            want, _ = with_alibi(q[one], k_cache[one, :n], v_cache[one, :n], of_one(i), False)
            torch.testing.assert_close(out[one].double(), want, atol=1e-5, rtol=0)


def test_dropout_draws_from_the_generator_of_pytorch():
    q, k = torch.randn(2, 2, 12, 2, 16)
    one_hot = torch.eye(12)[None, :, None].expand(2, 12, 2, 12)
    ends = torch.tensor([0, 12])

    def runs():
        torch.manual_seed(4)
        yield flash_attn_func(q, k, one_hot, 0.5)
        yield flash_attn_func(q, k, one_hot, 0.5)
        yield flash_attn_varlen_func(q[0], k[0], one_hot[0], ends, ends, 12, 12, 0.5)

    first, again = list(runs()), list(runs())
    for x, y in zip(first, again, strict=True):
        assert torch.equal(x, y)
    assert not torch.equal(first[0], first[1])
    want = flash_attn_func(q, k, one_hot)
    for got, of in zip(first, (want, want, want[0]), strict=True):
        kept = got != 0
        torch.testing.assert_close(got[kept], 2 * of[kept], atol=1e-6, rtol=1e-5)
        assert 0.3 < kept.float().mean() < 0.7


def test_what_is_not_there_says_so():
    q = torch.randn(1, 4, 4, 8)
    with pytest.raises(ingot.InvalidArgument, match="q: must have 4 dimensions"):
        flash_attn_func(q[0], q, q)
    with pytest.raises(ingot.Unsupported, match="block_table: must be None, got a tensor"):
        flash_attn_with_kvcache(q, q, q, block_table=torch.zeros(1, 1))


def test_a_cache_is_written_only_where_all_arguments_fit():
    q, new = torch.randn(2, 1, 2, 8), torch.randn(2, 2, 2, 8)
    k_cache, v_cache = torch.zeros(2, 16, 2, 8), torch.zeros(2, 16, 2, 8)
    wrong = {
        "cache_seqlens": torch.tensor([3, 15]),
        "cache_batch_idx": torch.tensor([1, 1]),
        "window_size": (-7, 0),
        "softmax_scale": 0.0,
        "v": new.double(),
        "q": q[..., :7],
    }
    for name, value in wrong.items():
        given = {"q": q, "k": new, "v": new, "cache_seqlens": 3, name: value}
        with pytest.raises(ingot.InvalidArgument):
            flash_attn_with_kvcache(given.pop("q"), k_cache, v_cache, **given)
        assert not k_cache.any() and not v_cache.any(), name
    with pytest.raises(ingot.Unsupported, match="q: must not require gradients"):
        flash_attn_with_kvcache(q.requires_grad_(), k_cache, v_cache)
    with torch.no_grad():
        flash_attn_with_kvcache(q, k_cache, v_cache)


@pytest.mark.parametrize("index", [None, torch.tensor([], dtype=torch.int64)], ids=str)
def test_a_cache_without_entries(index):
    cache = torch.zeros(0 if index is None else 3, 16, 2, 8)
    o = flash_attn_with_kvcache(torch.randn(0, 1, 2, 8), cache, cache, cache_batch_idx=index)
    assert o.shape == (0, 1, 2, 8)
