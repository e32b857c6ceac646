"""The aten operators behind scaled_dot_product_attention's flash path, by ingot.

Their results are in memory as PyTorch's meta kernels say, which compiled code relies on.
"""

import torch
from torch.library import Library

from ingot import _core, _torch_checks
from ingot._errors import InvalidArgument, Unsupported
from ingot._options import precision_code
from ingot._torch_operators import run
from ingot._torch_parts import parts_of_tensors
from ingot._torch_sdpa import count_fallback, matmul_precision

_CPU = "_scaled_dot_product_flash_attention_for_cpu"
_CUDA = "_scaled_dot_product_flash_attention"


class Handle:
    """What the registry keeps; without its libraries PyTorch's own operators are back."""

    def __init__(self, libraries):
        self._libraries = libraries

    def remove(self):
        for library in self._libraries:
            library._destroy()
        self._libraries = []


def activate(fallback=None):
    libraries = [_library("CPU", {_CPU: _cpu_forward, f"{_CPU}_backward": _cpu_backward}, fallback)]
    if torch.cuda.is_available():
        kernels = {_CUDA: _cuda_forward, f"{_CUDA}_backward": _cuda_backward}
        libraries.append(_library("CUDA", kernels, fallback))
    return Handle(libraries)


def _library(key, kernels, fallback):
    library = Library("aten", "IMPL", key)
    for name, kernel in kernels.items():
        if fallback is None:
            library.impl(name, kernel, key)
        else:
            before = torch.library.get_kernel(getattr(torch.ops.aten, name).default, key)
            with_fallback = _or_before(before, kernel)
            library.impl(name, with_fallback, key, with_keyset=True)
    return library


def _or_before(before, kernel):
    """The kernel, or the one that was there before for what ingot does not have."""

    def either(keyset, *args, **kwargs):
        try:
            return kernel(*args, **kwargs)
        except (InvalidArgument, Unsupported) as error:
            count_fallback(str(error))
            return before.call_boxed(keyset, *args, **kwargs)

    return either


def _check(dropout_p, debug_mask=False):
    if dropout_p != 0.0:
        raise Unsupported(f"dropout_p: must be 0, got {dropout_p}")
    if debug_mask:
        raise Unsupported("return_debug_mask: must be False")


def _options(is_causal, scale):
    if scale == 0:
        raise Unsupported("scale: must not be 0")
    precision = precision_code(matmul_precision())
    return (1 if is_causal else 0, -1, -1, 0.0 if scale is None else scale, 0.0, precision, 0)


def _parts(query, key, attn_mask):
    """What _core takes; PyTorch sends no mask here that needs a gradient."""
    if attn_mask is None:
        return None
    kind = "mask" if attn_mask.dtype == torch.bool else "bias"
    parts = parts_of_tensors(**{kind: attn_mask})
    _torch_checks.real_parts(query, key, (*parts.arrays, None), 0.0)
    return (*parts.arrays, 0.0, 0, 0, 0)


def _forward(query, key, value, lse, is_causal, scale, attn_mask=None):
    """o, and lse written."""
    options = _options(is_causal, scale)
    _torch_checks.real_forward(query, key, value)
    if value.shape[3] != query.shape[3]:
        raise Unsupported(f"value: must have a head_dim of {query.shape[3]}, got {value.shape[3]}")
    o = torch.empty_like(query)
    parts = _parts(query, key, attn_mask)
    run(_core.forward, (query, key, value, o, lse), options, parts)
    return o


def _backward(saved, grad_out, gradients, is_causal, scale, attn_mask=None):
    options = _options(is_causal, scale)
    _torch_checks.real_backward(*saved, grad_out)
    parts = _parts(*saved[:2], attn_mask)
    run(_core.backward, (*saved, grad_out, *gradients), options, parts)
    return gradients


def _cpu_forward(query, key, value, dropout_p=0.0, is_causal=False, *, attn_mask=None, scale=None):
    _check(dropout_p)
    batch, heads, seqlen, _ = query.shape
    lse = torch.empty((batch, seqlen, heads), dtype=torch.float32, device=query.device)
    lse = lse.transpose(1, 2)
    o = _forward(query, key, value, lse, is_causal, scale, attn_mask)
    return o, lse.double() if query.dtype == torch.float64 else lse


def _cpu_backward(
    grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, *, attn_mask=None, scale=None
):
    _check(dropout_p)
    gradients = tuple(
        torch.empty_permuted(x.shape, (0, 2, 1, 3), dtype=x.dtype, device=x.device)
        for x in (query, key, value)
    )
    saved = (query, key, value, out, logsumexp.float())
    return _backward(saved, grad_out, gradients, is_causal, scale, attn_mask)


def _cuda_forward(
    query, key, value, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None
):
    _check(dropout_p, return_debug_mask)
    lse = torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)
    o = _forward(query, key, value, lse, is_causal, scale)
    seed, offset = (
        torch.empty(size, dtype=torch.uint64, device=query.device) for size in ((2,), ())
    )
    debug_mask = torch.empty(0, dtype=query.dtype, device=query.device)
    sizes = (query.shape[2], key.shape[2])
    return (o, lse, None, None, *sizes, seed, offset, debug_mask)


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
    gradients = tuple(torch.empty_like(x) for x in (query, key, value))
    saved = (query, key, value, out, logsumexp)
    return _backward(saved, grad_out, gradients, is_causal, scale)
