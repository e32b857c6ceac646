"""The cases of cuda_torch.py and who runs them on a GPU: ingot, and PyTorch's cuDNN, FlashAttention
and memory-efficient back ends.

A contestant is made with its inputs, has run() that queues one call on the current stream, and
leaves `o`.
"""

import itertools
import math
from dataclasses import dataclass

import ingot_ctypes as ingot
import measure

torch = measure.require("torch")

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
L2_BYTES = 60 << 20


@dataclass(frozen=True)
class Case:
    dtype: str
    batch: int
    heads: int
    heads_kv: int
    seqlen_q: int
    seqlen_k: int
    head_dim: int
    head_dim_v: int = 0
    causal: bool = False

    @property
    def dim_v(self):
        return self.head_dim_v or self.head_dim

    @property
    def is_decode(self):
        return self.seqlen_q <= 16

    @property
    def name(self):
        heads = f"{self.heads}" + (f"/{self.heads_kv}" if self.heads_kv != self.heads else "")
        lengths = f"{self.seqlen_q}:{self.seqlen_k}" if self.is_decode else f"{self.seqlen_k}"
        dims = f"{self.head_dim}" + (f"/{self.head_dim_v}" if self.head_dim_v else "")
        kind = "decode" if self.is_decode else "forward"
        shape = f"{self.batch}x{heads}x{lengths}x{dims}"
        return f"{kind}/{self.dtype}/{shape}" + ("/causal" if self.causal else "")

    @property
    def work(self):
        """FLOPs, or bytes of K and V for decoding."""
        dims = self.head_dim + self.dim_v
        if self.is_decode:
            keys = self.batch * self.heads_kv * self.seqlen_k
            return keys * dims * DTYPES[self.dtype].itemsize
        pairs = self.batch * self.heads * self.seqlen_q * self.seqlen_k
        return 2 * pairs * dims / (2 if self.causal else 1)

    @property
    def plan_sizes(self):
        return {
            "batch": self.batch,
            "num_heads": self.heads,
            "num_heads_kv": self.heads_kv,
            "seqlen_q": self.seqlen_q,
            "seqlen_k": self.seqlen_k,
            "head_dim": self.head_dim,
            "head_dim_v": self.dim_v,
            "q_dtype": ingot.DTYPES[self.dtype],
            "causal": ingot.CAUSAL["top_left" if self.causal else "none"],
        }


def square(dtype, heads, seqlen, dim, dim_v=0, causal=False, heads_kv=0, batch=1):
    return Case(dtype, batch, heads, heads_kv or heads, seqlen, seqlen, dim, dim_v, causal)


def targets():
    """One long sequence at hidden size 2048, and the shapes where the peers differ most."""
    for dim, heads in ((64, 32), (96, 21), (128, 16), (160, 12), (192, 10), (256, 8)):
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


def all_cases(everything):
    cases = itertools.chain(targets(), grid() if everything else ())
    return list(dict.fromkeys(cases))


@dataclass
class Inputs:
    """Contiguous BHSD tensors; pairs are the (k, v) that calls take in a circle."""

    q: object
    pairs: list


def make_inputs(case):
    """Random normal, always the same. Decoding gets so many caches that calls read memory."""
    generator = torch.Generator(device="cuda").manual_seed(1)

    def normal(heads, length, dim):
        shape = (case.batch, heads, length, dim)
        return torch.randn(shape, generator=generator, device="cuda").to(DTYPES[case.dtype])

    copies = math.ceil(4 * L2_BYTES / case.work) if case.is_decode else 1
    q = normal(case.heads, case.seqlen_q, case.head_dim)
    pairs = [
        (
            normal(case.heads_kv, case.seqlen_k, case.head_dim),
            normal(case.heads_kv, case.seqlen_k, case.dim_v),
        )
        for _ in range(copies)
    ]
    return Inputs(q, pairs)


class Torch:
    """One of PyTorch's back ends. Raises RuntimeError in run() where it cannot do the case."""

    BACKENDS = {"cudnn": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION"}
    BACKENDS["efficient"] = "EFFICIENT_ATTENTION"

    def __init__(self, backend, case, inputs):
        attention = torch.nn.attention
        self.backend = getattr(attention.SDPBackend, self.BACKENDS[backend])
        self.kernel = attention.sdpa_kernel
        self.case, self.q = case, inputs.q
        self.pairs = itertools.cycle(inputs.pairs)

    def run(self):
        k, v = next(self.pairs)
        with self.kernel(self.backend), torch.no_grad():
            self.o = torch.nn.functional.scaled_dot_product_attention(
                self.q,
                k,
                v,
                is_causal=self.case.causal,
                enable_gqa=self.case.heads != self.case.heads_kv,
            )

    def close(self):
        pass


class Ingot:
    """The library through its C interface, with PyTorch's memory and current stream."""

    def __init__(self, context, case, inputs):
        self.plan = ingot.Plan(context, "cuda:0", **case.plan_sizes)
        q = inputs.q
        self.o = torch.empty(*q.shape[:3], case.dim_v, dtype=q.dtype, device="cuda")
        workspace = self.plan.workspace_bytes(ingot.FORWARD)
        self.workspace = torch.empty(max(workspace, 1), dtype=torch.uint8, device="cuda")
        self.keep = inputs
        calls = []
        for k, v in inputs.pairs:
            filled = ingot.arguments(context.library, ingot.ForwardArgs, q=q, k=k, v=v, o=self.o)
            filled.workspace = self.workspace.data_ptr() if workspace else None
            filled.workspace_bytes = workspace
            calls.append(filled)
        self.calls = itertools.cycle(calls)

    def run(self):
        arguments = next(self.calls)
        arguments.submission.stream = torch.cuda.current_stream().cuda_stream
        self.plan.forward(arguments)

    def close(self):
        self.plan.close()


def errors(case, inputs, contestant):
    """(largest absolute, relative Frobenius) difference from float64 of the first head's first and
    last rows."""
    rows = min(256, case.seqlen_q)
    if isinstance(contestant, Ingot):
        contestant.o.fill_(math.nan)  # what is not written shows
    for _ in inputs.pairs:
        contestant.run()  # once round the circle: the first pair was used at the making
    k, v = (t[0, 0].double() for t in inputs.pairs[0])
    worst, parts = 0.0, []
    for first in (0, case.seqlen_q - rows):
        q = inputs.q[0, 0, first : first + rows].double()
        score = q @ k.T / math.sqrt(case.head_dim)
        if case.causal:
            row = torch.arange(first, first + rows, device="cuda")[:, None]
            score.masked_fill_(torch.arange(case.seqlen_k, device="cuda")[None] > row, -math.inf)
        expected = torch.softmax(score, 1) @ v
        difference = contestant.o[0, 0, first : first + rows].double() - expected
        worst = max(worst, difference.abs().max().item())
        parts.append((difference.norm() / expected.norm()).item())
    return worst, max(parts)
