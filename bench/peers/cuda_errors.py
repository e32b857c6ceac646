"""How far the results of cuda_torch.py's contestants are from attention in higher precision."""

import math

import cuda_contestants
import measure

torch = measure.require("torch")


def errors(case, inputs, contestant):
    """(largest absolute, relative Frobenius) difference from the reference, the larger of both over
    all results. Memory that PyTorch hands out is NaN meanwhile, so what is not written shows."""
    poison = isinstance(contestant.library, cuda_contestants.Ingot)
    torch.use_deterministic_algorithms(poison, warn_only=True)
    try:
        for _ in inputs.pairs or (None,):
            contestant.run()  # once round the circle: the first pair was used at the making
    finally:
        torch.use_deterministic_algorithms(False)
    pairs = REFERENCES[case.kind](case, inputs, contestant.results)
    differences = [(got.double() - want, want) for got, want in pairs]
    worst = max(d.abs().max().item() for d, _ in differences)
    return worst, max((d.norm() / want.norm()).item() for d, want in differences)


def scores(case, q, k, first=0):
    """scale q k^T in float64 with its mask, for queries from `first` on."""
    score = q @ k.T / math.sqrt(case.head_dim)
    if case.causal:
        row = torch.arange(first, first + q.shape[0], device=q.device)[:, None]
        score.masked_fill_(torch.arange(k.shape[0], device=q.device)[None] > row, -math.inf)
    return score


def forward_pairs(case, inputs, results):
    """The first head's first and last rows, in float64."""
    rows = min(256, case.seqlen_q)
    k, v = (t[0, 0].double() for t in inputs.pairs[0])
    for first in (0, case.seqlen_q - rows):
        q = inputs.q[0, 0, first : first + rows].double()
        expected = torch.softmax(scores(case, q, k, first), 1) @ v
        yield results[0][0, 0, first : first + rows], expected


def backward_pairs(case, inputs, results):
    """The gradients of the first key head and of its query heads, in float64."""
    group = case.heads // case.heads_kv
    k, v = (t[0, 0].double() for t in inputs.pairs[0])
    dk, dv = torch.zeros_like(k), torch.zeros_like(v)
    for head in range(group):
        q, dout = (t[0, head].double() for t in (inputs.q, inputs.dout))
        p = torch.softmax(scores(case, q, k), 1)
        dv += p.T @ dout
        delta = (dout * (p @ v)).sum(1, keepdim=True)
        ds = (dout @ v.T).sub_(delta).mul_(p).mul_(1 / math.sqrt(case.head_dim))
        dk += ds.T @ q
        yield results[0][0, head], ds @ k
    yield results[1][0, 0], dk
    yield results[2][0, 0], dv


def step_pairs(case, inputs, results):
    """The whole step in float32 by PyTorch's memory-efficient kernel, without TF32."""
    wide = type(inputs)(
        x=inputs.x.float(),
        weights=tuple(w.float() for w in inputs.weights),
        dout=inputs.dout.float(),
    )
    reference = cuda_contestants.make("efficient", case, wide)
    reference.run()
    return zip(results, reference.results, strict=True)


REFERENCES = {"forward": forward_pairs, "backward": backward_pairs, "step": step_pairs}
