"""The cases of cuda_torch.py, and their inputs."""

import itertools
import math
from dataclasses import dataclass

import measure

torch = measure.require("torch")

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
L2_BYTES = 60 << 20
DIMS_AND_HEADS = ((64, 32), (96, 21), (128, 16), (160, 12), (192, 10), (256, 8))  # hidden size 2048


@dataclass(frozen=True)
class Case:
    """kind: "forward" (decoding, where there are few queries), "backward" or "step", which is
    forward and backward of a layer: projections from and to the hidden size, attention between."""

    dtype: str
    batch: int
    heads: int
    heads_kv: int
    seqlen_q: int
    seqlen_k: int
    head_dim: int
    head_dim_v: int = 0
    causal: bool = False
    kind: str = "forward"

    @property
    def dim_v(self):
        return self.head_dim_v or self.head_dim

    @property
    def is_decode(self):
        return self.kind == "forward" and self.seqlen_q <= 16

    @property
    def name(self):
        heads = f"{self.heads}" + (f"/{self.heads_kv}" if self.heads_kv != self.heads else "")
        lengths = f"{self.seqlen_q}:{self.seqlen_k}" if self.is_decode else f"{self.seqlen_k}"
        dims = f"{self.head_dim}" + (f"/{self.head_dim_v}" if self.head_dim_v else "")
        kind = "decode" if self.is_decode else self.kind
        shape = f"{self.batch}x{heads}x{lengths}x{dims}"
        return f"{kind}/{self.dtype}/{shape}" + ("/causal" if self.causal else "")

    @property
    def unit(self):
        return "GB/s" if self.is_decode else "TFLOP/s"

    @property
    def work(self):
        """FLOPs, or bytes of K and V for decoding."""
        if self.is_decode:
            keys = self.batch * self.heads_kv * self.seqlen_k
            return keys * (self.head_dim + self.dim_v) * DTYPES[self.dtype].itemsize
        pairs = self.batch * self.heads * self.seqlen_q * self.seqlen_k / (2 if self.causal else 1)
        forward = 2 * pairs * (self.head_dim + self.dim_v)
        backward = 2 * pairs * (3 * self.head_dim + 2 * self.dim_v)
        weights = sum(rows * columns for rows, columns in self.weight_shapes)
        projections = 3 * 2 * self.batch * self.seqlen_q * weights
        parts = {"forward": forward, "backward": backward}
        return parts.get(self.kind, forward + backward + projections)

    @property
    def hidden(self):
        return self.heads * self.head_dim

    @property
    def weight_shapes(self):
        """Of the projections to q, k and v together and of the one from o, for a step."""
        wide = (self.heads + self.heads_kv) * self.head_dim + self.heads_kv * self.dim_v
        return (wide, self.hidden), (self.hidden, self.heads * self.dim_v)


def square(dtype, heads, seqlen, dim, dim_v=0, heads_kv=0, batch=1, **options):
    return Case(dtype, batch, heads, heads_kv or heads, seqlen, seqlen, dim, dim_v, **options)


def targets():
    """One long sequence at hidden size 2048, and the shapes where the peers differ most."""
    for dim, heads in DIMS_AND_HEADS:
        yield square("bf16", heads, 16384, dim)
    for dim in (320, 384, 512):
        yield square("bf16", 4, 16384, dim)
    for seqlen, batch in ((4096, 4), (16384, 1)):
        yield square("bf16", 16, seqlen, 128, causal=True, batch=batch)
    for dim in (32, 40, 72, 80):
        yield square("bf16", 16, 16384, dim)
    yield square("bf16", 32, 8192, 128, causal=True, heads_kv=8)
    yield square("bf16", 16, 8192, 192, 128, causal=True)
    for dim in (64, 128):
        yield square("f32", 8, 8192, dim)
    for keys in (8192, 65536):
        yield Case("bf16", 1, 32, 8, 1, keys, 128)
    yield Case("bf16", 16, 32, 8, 1, 8192, 128)


def grid():
    """What the papers report: 16k tokens in all, hidden size 2048, causal and not."""
    for dim, heads in ((64, 32), (128, 16), (256, 8)):
        for batch, seqlen in ((32, 512), (16, 1024), (8, 2048), (4, 4096), (2, 8192), (1, 16384)):
            for causal in (False, True):
                yield square("bf16", heads, seqlen, dim, causal=causal, batch=batch)
    for shape in ((1, 24, 4250, 128), (2, 40, 8192, 64), (64, 16, 197, 80), (32, 16, 1024, 72)):
        batch, heads, seqlen, dim = shape
        yield square("bf16", heads, seqlen, dim, batch=batch)


def backward():
    """The backward pass alone: long and dense, f32, causal short and long; then whole steps."""
    for dim, heads in (*DIMS_AND_HEADS, (320, 4), (512, 4)):
        yield square("bf16", heads, 16384, dim, kind="backward")
    for dim in (64, 128):
        yield square("f32", 8, 8192, dim, kind="backward")
    for dim, heads in ((64, 32), (128, 16), (256, 8)):
        for seqlen, batch in ((4096, 4), (16384, 1)):
            yield square("bf16", heads, seqlen, dim, causal=True, batch=batch, kind="backward")
    for dim, heads in ((64, 32), (128, 16), (256, 8)):
        for seqlen, batch in ((4096, 4), (16384, 1)):
            yield square("bf16", heads, seqlen, dim, causal=True, batch=batch, kind="step")


def all_cases(everything, only_backward):
    chosen = (backward(),) if only_backward else (targets(), grid() if everything else ())
    return list(dict.fromkeys(itertools.chain(*chosen)))


@dataclass
class Inputs:
    """Contiguous BHSD tensors; pairs are the (k, v) that forward calls take in a circle. dout is
    for the backward pass; of a step x, the weights and dout."""

    q: object = None
    pairs: tuple = ()
    dout: object = None
    x: object = None
    weights: tuple = ()


def make_inputs(case, device="cuda"):
    """Random normal, always the same. Decoding gets so many caches that calls read memory."""
    generator = torch.Generator(device).manual_seed(1)

    def normal(*shape, factor=1.0):
        values = torch.randn(shape, generator=generator, device=device)
        return (values * factor).to(DTYPES[case.dtype])

    batch, lengths = case.batch, (case.seqlen_q, case.seqlen_k)
    if case.kind == "step":
        x, dout = (normal(batch, lengths[0], case.hidden) for _ in range(2))
        weights = tuple(normal(*shape, factor=shape[1] ** -0.5) for shape in case.weight_shapes)
        return Inputs(x=x, weights=weights, dout=dout)
    q = normal(batch, case.heads, lengths[0], case.head_dim)
    copies = math.ceil(4 * L2_BYTES / case.work) if case.is_decode else 1
    pairs = tuple(
        (
            normal(batch, case.heads_kv, lengths[1], case.head_dim),
            normal(batch, case.heads_kv, lengths[1], case.dim_v),
        )
        for _ in range(copies)
    )
    inputs = Inputs(q, pairs)
    if case.kind == "backward":
        inputs.dout = normal(batch, case.heads, lengths[0], case.dim_v)
    return inputs
