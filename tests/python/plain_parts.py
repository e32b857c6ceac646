"""Attention with every part of the score, as the textbook has it, in NumPy and float64: ALiBi,
bias, mask, prefix, sinks and dropout, written from the text of include/ingot/ingot.h."""

import numpy as np
from plain import visible


def philox(counter, key):
    """Philox4x32-10 (Salmon et al., SC 2011) of (.., 4) counters: (.., 4) words of 32 bits."""
    low = np.uint64(0xFFFFFFFF)
    c = [np.asarray(x, np.uint64) for x in np.moveaxis(counter, -1, 0)]
    k = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [
            (b >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]),
            b & low,
            (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]),
            a & low,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, -1)


def keep(shape, dropout, seed):
    """The factor of each weight of (batch, heads, queries, keys)."""
    threshold = round(float(np.float32(dropout)) * 65536)
    if threshold == 0:
        return np.ones(shape)
    seed, offset = seed if isinstance(seed, tuple) else (seed, 0)
    batch, heads, queries, keys = shape
    head, row, col = np.meshgrid(
        np.arange(batch * heads), np.arange(queries), np.arange(keys), indexing="ij"
    )
    # Squares of 16 x 16: rows r and r + 8, cols c, c + 1, c + 8 and c + 9 share four words.
    counter = np.stack(
        [
            col // 16 * 4 + col % 8 // 2,
            row // 16 * 8 + row % 8,
            head,
            np.full_like(head, offset & 0xFFFFFFFF),
        ],
        -1,
    )
    words = philox(counter, seed ^ (offset >> 32 << 32))
    place = (row // 8 % 2 * 2 + col // 8 % 2)[..., None]
    word = np.take_along_axis(words, place, -1)[..., 0].astype(np.int64)
    number = np.where(col % 2 == 0, word & 0xFFFF, word >> 16)
    return np.where(number < threshold, 0.0, 65536 / (65536 - threshold)).reshape(shape)


def attention(
    q,
    k,
    v,
    dout=None,
    *,
    causal=None,
    window=None,
    scale=None,
    softcap=None,
    mask=None,
    bias=None,
    alibi_slopes=None,
    sinks=None,
    dropout=0.0,
    seed=0,
    prefix_len=None,
):
    """(o, lse), or with dout, the gradient of o, {"q": dq, "k": dk, "v": dv, "bias": .., "sinks":
    ..}."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k_all, v_all = (np.repeat(x, group, 1) for x in (k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    shape = (*q.shape[:3], k.shape[2])
    seen = np.broadcast_to(visible(*shape[2:], causal, window), shape)
    if prefix_len is not None:
        seen = seen | (np.arange(shape[3]) < np.asarray(prefix_len)[:, None, None, None])
    if mask is not None:
        seen = seen & mask
    s = scale * (q @ k_all.swapaxes(-1, -2))
    slope = np.full(shape, scale)
    if softcap is not None:
        tanh = np.tanh(s / softcap)
        s, slope = softcap * tanh, slope * (1 - tanh**2)
    if alibi_slopes is not None:
        shift = 0 if causal == "top_left" else shape[3] - shape[2]
        far = np.abs(np.arange(shape[3]) - np.arange(shape[2])[:, None] - shift)
        s = s - np.asarray(alibi_slopes, np.float64)[..., None, None] * far
    if bias is not None:
        s = s + np.asarray(bias, np.float64)
    s = np.where(seen, s, -np.inf)
    sink = np.full(shape[1], -np.inf) if sinks is None else np.asarray(sinks, np.float64)
    sink = sink[:, None, None]
    top = np.maximum(s.max(-1, keepdims=True, initial=-np.inf), sink)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.exp(s - top).sum(-1, keepdims=True) + np.exp(sink - top)
    with np.errstate(divide="ignore"):
        lse = top + np.log(total)
    p = np.exp(s - np.where(total == 0, 0.0, lse))
    kept = keep(shape, dropout, seed)
    o = (kept * p) @ v_all
    if dout is None:
        return o, lse[..., 0]
    dp = kept * (dout @ v_all.swapaxes(-1, -2))
    delta = (p * dp).sum(-1, keepdims=True)
    ds = p * (dp - delta)
    over_group = lambda x: x.reshape(x.shape[0], -1, group, *x.shape[2:]).sum(2)  # noqa: E731
    gradients = {
        "q": (ds * slope) @ k_all,
        "k": over_group((ds * slope).swapaxes(-1, -2) @ q),
        "v": over_group((kept * p).swapaxes(-1, -2) @ dout),
    }
    if bias is not None:
        wide = (1,) * (4 - np.ndim(bias)) + np.shape(bias)
        axes = tuple(i for i, n in enumerate(wide) if n == 1)
        gradients["bias"] = ds.sum(axes, keepdims=True).reshape(np.shape(bias))
    if sinks is not None:
        gradients["sinks"] = -(np.exp(sink - np.where(total == 0, 0, lse)) * delta).sum((0, 2, 3))
    return gradients
