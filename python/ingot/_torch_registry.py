"""The aten operators behind scaled_dot_product_attention's flash path, by ingot."""

import torch
from torch.library import Library

from ingot._errors import Unsupported
from ingot._options import precision_code
from ingot.torch import matmul_precision


class Handle:
    """What the registry keeps; without its libraries PyTorch's own operators are back."""

    def __init__(self, libraries):
        self._libraries = libraries

    def remove(self):
        for library in self._libraries:
            library._destroy()
        self._libraries = []


def activate():
    cpu = Library("aten", "IMPL", "CPU")
    cpu.impl("_scaled_dot_product_flash_attention_for_cpu", _cpu_forward, "CPU")
    cpu.impl("_scaled_dot_product_flash_attention_for_cpu_backward", _cpu_backward, "CPU")
    libraries = [cpu]
    if torch.cuda.is_available():
        cuda = Library("aten", "IMPL", "CUDA")
        cuda.impl("_scaled_dot_product_flash_attention", _cuda_forward, "CUDA")
        cuda.impl("_scaled_dot_product_flash_attention_backward", _cuda_backward, "CUDA")
        libraries.append(cuda)
    return Handle(libraries)


def _check(dropout_p, attn_mask=None, debug_mask=False):
    if dropout_p != 0.0:
        raise Unsupported(f"dropout_p: must be 0, got {dropout_p}")
    if attn_mask is not None:
        raise Unsupported("attn_mask: must be None, got a tensor")
    if debug_mask:
        raise Unsupported("return_debug_mask: must be False")


def _options(is_causal, scale):
    precision = precision_code(matmul_precision())
    return (1 if is_causal else 0, -1, -1, 0.0 if scale is None else scale, 0.0, precision, 0)


def _cpu_forward(query, key, value, dropout_p=0.0, is_causal=False, *, attn_mask=None, scale=None):
    _check(dropout_p, attn_mask)
    return torch.ops.ingot.attention_forward(query, key, value, *_options(is_causal, scale))


def _cpu_backward(
    grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, *, attn_mask=None, scale=None
):
    _check(dropout_p, attn_mask)
    return torch.ops.ingot.attention_backward(
        query, key, value, out, logsumexp, grad_out, *_options(is_causal, scale)
    )


def _cuda_forward(
    query, key, value, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None
):
    _check(dropout_p, None, return_debug_mask)
    o, lse = torch.ops.ingot.attention_forward(query, key, value, *_options(is_causal, scale))
    lengths = torch.empty(0, dtype=torch.int32, device=query.device)
    random_state = torch.empty(2, dtype=torch.uint64, device=query.device)
    unused = torch.empty(0, device=query.device)
    sizes = (query.shape[2], key.shape[2])
    return (o, lse, lengths, lengths, *sizes, random_state, unused, unused)


def _cuda_backward(
    grad_out,
    query,
    key,
    value,
    out,
    logsumexp,
    cum_seq_q,
    cum_seq_k,
    max_q,
    max_k,
    dropout_p,
    is_causal,
    philox_seed,
    philox_offset,
    *,
    scale=None,
):
    _check(dropout_p)
    return torch.ops.ingot.attention_backward(
        query, key, value, out, logsumexp, grad_out, *_options(is_causal, scale)
    )
