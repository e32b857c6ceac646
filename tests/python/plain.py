"""Attention as the textbook has it, in NumPy and float64, and its gradient."""

import numpy as np


def visible(seqlen_q, seqlen_k, causal=None, window=None):
    """The (seqlen_q, seqlen_k) mask of include/ingot/ingot.h, written from its text."""
    row = np.arange(seqlen_q)[:, None]
    col = np.arange(seqlen_k)[None, :]
    shift = 0 if causal == "top_left" else seqlen_k - seqlen_q
    seen = np.ones((seqlen_q, seqlen_k), bool)
    if causal is not None:
        seen &= col <= row + shift
    if window is not None:
        left, right = (-1 if side is None else side for side in window)
        if left >= 0:
            seen &= col >= row + shift - left
        if right >= 0:
            seen &= col <= row + shift + right
    return seen


def attention(q, k, v, *, causal=None, window=None, scale=None, softcap=None):
    """(o, lse) of (batch, heads, seqlen, head_dim) arrays."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, group, 1) for x in (k, v))
    s = (q @ k.swapaxes(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        s = softcap * np.tanh(s / softcap)
    s = np.where(visible(q.shape[2], k.shape[2], causal, window), s, -np.inf)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    p = np.exp(s - top)
    total = p.sum(-1, keepdims=True)
    o = (p @ v) / np.where(total == 0, 1.0, total)
    with np.errstate(divide="ignore"):
        return o, (top + np.log(total))[..., 0]
