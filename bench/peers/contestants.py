"""The cases of cpu_torch.py and who runs them: ingot, PyTorch's flash and math back ends.

A contestant is made with its inputs, has run(), and leaves `results`: (o,) or (dq, dk, dv).
"""

import itertools
import math
from dataclasses import dataclass

import measure

torch = measure.require("torch")

flash_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
math_forward = torch.ops.aten._scaled_dot_product_attention_math
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True)
class Case:
    kind: str  # "forward", "backward" or "decode"
    dtype: str
    batch: int
    heads: int
    seqlen_q: int
    seqlen_k: int
    head_dim: int
    causal: bool = False

    @property
    def name(self):
        lengths = f"1:{self.seqlen_k}" if self.kind == "decode" else f"{self.seqlen_k}"
        shape = f"{self.batch}x{self.heads}x{lengths}x{self.head_dim}"
        return f"{self.kind}/{self.dtype}/{shape}" + ("/causal" if self.causal else "")

    @property
    def work(self):
        """FLOPs, or bytes of K and V for decoding."""
        keys = self.batch * self.heads * self.seqlen_k * self.head_dim
        if self.kind == "decode":
            return 2 * keys * DTYPES[self.dtype].itemsize
        factor = {"forward": 4, "backward": 10}[self.kind]
        return factor * keys * self.seqlen_q / (2 if self.causal else 1)


def all_cases():
    shapes = [(1, 8, 2048, d) for d in (64, 80, 128, 256)] + [(8, 12, 128, 64)]
    for kind, dtype in itertools.product(("forward", "backward"), DTYPES):
        for (b, h, n, d), causal in itertools.product(shapes, (False, True)):
            yield Case(kind, dtype, b, h, n, n, d, causal)
    for dtype in DTYPES:
        yield Case("decode", dtype, 1, 32, 1, 8192, 128)


@dataclass
class Inputs:
    """Contiguous BHSD tensors; pairs are the (k, v) that forward calls take in a circle."""

    q: object
    k: object
    v: object
    dout: object
    pairs: list


def make_inputs(case):
    """Random normal, always the same. Decoding gets so many caches that calls read memory."""
    generator = torch.Generator().manual_seed(1)

    def normal(length):
        shape = (case.batch, case.heads, length, case.head_dim)
        return torch.randn(shape, generator=generator).to(DTYPES[case.dtype])

    q, k, v, dout = (
        normal(n) for n in (case.seqlen_q, case.seqlen_k, case.seqlen_k, case.seqlen_q)
    )
    pairs = [(k, v)]
    if case.kind == "decode":
        copies = math.ceil(measure.out_of_cache_bytes() / case.work)
        pairs += [(k.clone(), v.clone()) for _ in range(copies - 1)]
    return Inputs(q, k, v, dout, pairs)


def reference(case, inputs):
    """(o,) or (dq, dk, dv) of the first head in float64, by autograd through the plain formula."""
    tensors = (inputs.q, inputs.k, inputs.v, inputs.dout)
    q, k, v, dout = (t[0, 0].detach().double() for t in tensors)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    score = q @ k.T / math.sqrt(case.head_dim)
    if case.causal:
        score = score.masked_fill(torch.ones_like(score, dtype=torch.bool).triu(1), -math.inf)
    o = torch.softmax(score, 1) @ v
    return torch.autograd.grad(o, leaves, dout) if case.kind == "backward" else (o.detach(),)


def max_error(results, expected):
    """Largest absolute difference on the first head; nan where any value is."""
    pairs = zip(results, expected, strict=True)
    errors = [(r[0, 0].detach().double() - e).abs().max() for r, e in pairs]
    return torch.stack(errors).max().item()


class Flash:
    """PyTorch's flash back end for CPUs, called as its operators, so that nothing else is timed."""

    def __init__(self, case, inputs):
        self.case, self.inputs = case, inputs
        self.pairs = itertools.cycle(inputs.pairs)
        if case.kind == "backward":
            q, k, v = inputs.q, inputs.k, inputs.v
            self.forward_results = flash_forward(q, k, v, 0.0, case.causal)
            self.run = self.backward
        else:
            self.run = self.forward

    def forward(self):
        k, v = next(self.pairs)
        self.results = flash_forward(self.inputs.q, k, v, 0.0, self.case.causal)[:1]

    def backward(self):
        i, forward_results = self.inputs, self.forward_results
        self.results = flash_backward(
            i.dout, i.q, i.k, i.v, *forward_results, 0.0, self.case.causal
        )


class Plain:
    """PyTorch's math back end; backward is autograd through a graph that is kept."""

    def __init__(self, case, inputs):
        self.case, self.inputs = case, inputs
        self.pairs = itertools.cycle(inputs.pairs)
        if case.kind == "backward":
            tensors = (inputs.q, inputs.k, inputs.v)
            self.leaves = [t.detach().clone().requires_grad_() for t in tensors]
            self.o = math_forward(*self.leaves, None, 0.0, case.causal)[0]
            self.run = self.backward
        else:
            self.run = self.forward

    def forward(self):
        k, v = next(self.pairs)
        self.results = math_forward(self.inputs.q, k, v, None, 0.0, self.case.causal)[:1]

    def backward(self):
        self.results = torch.autograd.grad(self.o, self.leaves, self.inputs.dout, retain_graph=True)


class Ingot:
    """ingot.attention and ingot.attention_backward; like PyTorch's, each call makes its outputs."""

    def __init__(self, case, inputs):
        self.ingot = measure.require("ingot", ".")
        self.inputs = inputs
        self.options = {"causal": "top_left" if case.causal else None}
        self.pairs = itertools.cycle(inputs.pairs)
        self.run = self.forward
        if case.kind == "backward":
            i = inputs
            o, lse = self.ingot.attention(i.q, i.k, i.v, return_lse=True, **self.options)
            self.saved = (i.q, i.k, i.v, o, lse, i.dout)
            self.run = self.backward

    def forward(self):
        k, v = next(self.pairs)
        self.results = (self.ingot.attention(self.inputs.q, k, v, **self.options),)

    def backward(self):
        self.results = self.ingot.attention_backward(*self.saved, **self.options)
