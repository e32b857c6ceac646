"""Who runs the cases of cuda_torch.py: ingot, and PyTorch's cuDNN, FlashAttention and
memory-efficient back ends.

A contestant is made with its inputs, has run() that queues one call on the current stream, and
leaves `results`: (o,), (dq, dk, dv), or of a step the gradients of x and of the weights.
"""

import itertools

import measure

torch = measure.require("torch")

BACKENDS = {"cudnn": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION"}
BACKENDS["efficient"] = "EFFICIENT_ATTENTION"


class Torch:
    """One of PyTorch's back ends; backward by autograd. Raises RuntimeError where it cannot."""

    def __init__(self, name):
        self.backend = getattr(torch.nn.attention.SDPBackend, BACKENDS[name])

    def attention(self, case, q, k, v):
        with torch.nn.attention.sdpa_kernel(self.backend):
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=case.causal, enable_gqa=case.heads != case.heads_kv
            )

    forward = attention

    def backward(self, case, inputs):
        leaves = [t.detach().requires_grad_() for t in (inputs.q, *inputs.pairs[0])]
        o = self.attention(case, *leaves)
        return lambda: torch.autograd.grad(o, leaves, inputs.dout, retain_graph=True)


class Ingot:
    """ingot.attention and attention_backward; in a step ingot.torch.attention, by autograd."""

    def __init__(self):
        self.ingot = measure.require("ingot", ".")
        import ingot.torch  # noqa: F401

    @staticmethod
    def options(case):
        return {"causal": "top_left" if case.causal else None}

    def attention(self, case, q, k, v):
        return self.ingot.torch.attention(q, k, v, **self.options(case))

    def forward(self, case, q, k, v):
        return self.ingot.attention(q, k, v, **self.options(case))

    def backward(self, case, inputs):
        options = self.options(case)
        tensors = (inputs.q, *inputs.pairs[0])
        o, lse = self.ingot.attention(*tensors, return_lse=True, **options)
        return lambda: self.ingot.attention_backward(*tensors, o, lse, inputs.dout, **options)


class Forward:
    def __init__(self, library, case, inputs):
        self.library, self.case, self.q = library, case, inputs.q
        self.pairs = itertools.cycle(inputs.pairs)

    def run(self):
        k, v = next(self.pairs)
        with torch.no_grad():
            self.results = (self.library.forward(self.case, self.q, k, v),)


class Backward:
    def __init__(self, library, case, inputs):
        self.library, self.call = library, library.backward(case, inputs)

    def run(self):
        self.results = self.call()


class Step:
    """One attention layer, forward and backward."""

    def __init__(self, library, case, inputs):
        self.library, self.case, self.dout = library, case, inputs.dout
        self.leaves = [t.detach().requires_grad_() for t in (inputs.x, *inputs.weights)]

    def run(self):
        y = self.layer(*self.leaves)
        self.results = torch.autograd.grad(y, self.leaves, self.dout)

    def layer(self, x, weight_in, weight_out):
        case = self.case
        wide = torch.nn.functional.linear(x, weight_in)
        sizes = (case.heads * case.head_dim, case.heads_kv * case.head_dim)
        q, k, v = wide.split((*sizes, case.heads_kv * case.dim_v), dim=-1)
        q, k, v = (
            t.unflatten(-1, (heads, -1)).transpose(1, 2)
            for t, heads in ((q, case.heads), (k, case.heads_kv), (v, case.heads_kv))
        )
        o = self.library.attention(case, q, k, v)
        return torch.nn.functional.linear(o.transpose(1, 2).flatten(2), weight_out)


KINDS = {"forward": Forward, "backward": Backward, "step": Step}


def make(name, case, inputs):
    library = Ingot() if name == "ingot" else Torch(name)
    return KINDS[case.kind](library, case, inputs)
