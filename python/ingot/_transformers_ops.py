"""torch.ops.ingot.attention_masked: attention under a mask tensor for compiled models.

A graph has no numbers to find a mask's structure in, so that is the operator's, each time it runs.
"""

import torch

from ingot._torch_operators import autograd_kernel, backward_node, in_node, make_node
from ingot._transformers_plan import (
    attend,
    differentiate,
    differentiate_over_pairs,
    plan_of_tensor,
)
from ingot._transformers_rows import over_pairs
from ingot.torch import attention

_OPTIONS = "float? scale, float? softcap, str precision"
_library = torch.library.Library("ingot", "FRAGMENT")


def _define(name, tensors, results):
    schema = f"{name}({', '.join(f'Tensor {t}' for t in tensors)}, {_OPTIONS}) -> {results}"
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    return lambda function: _library.impl(name, function, "CompositeExplicitAutograd")


def _plan(q, k, mask):
    """(the plan or None, what over_pairs says of the mask)."""
    pairs = over_pairs(mask, q.shape[2], k.shape[2])
    return plan_of_tensor(pairs["mask"]) if "mask" in pairs else None, pairs


def _options(scale, softcap, precision):
    return {"scale": scale, "softcap": softcap, "precision": precision}


@_define("attention_masked", ("q", "k", "v", "mask"), "Tensor")
def _(q, k, v, mask, *options):
    """(batch, seqlen, heads, head_dim_v), as transformers has it."""
    plan, pairs = _plan(q, k, mask)
    options = _options(*options)
    masked = plan is None
    o = attention(q, k, v, **pairs, **options) if masked else attend(plan, q, k, v, options)
    return o.transpose(1, 2).contiguous()


@_define("attention_masked_backward", ("q", "k", "v", "mask", "dout"), "(Tensor, Tensor, Tensor)")
def _(q, k, v, mask, dout, *options):
    dout = dout.transpose(1, 2)
    plan, pairs = _plan(q, k, mask)
    if plan is None:
        return differentiate_over_pairs(pairs, q, k, v, dout, _options(*options))
    return differentiate(plan, q, k, v, dout, _options(*options))


def _empty(q, k, v, mask, *_):
    return q.new_empty((q.shape[0], q.shape[2], q.shape[1], v.shape[3]))


def _empty_gradients(q, k, v, mask, dout, *_):
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


torch.library.register_fake("ingot::attention_masked", _empty, lib=_library)
torch.library.register_fake("ingot::attention_masked_backward", _empty_gradients, lib=_library)
_forward = torch.ops.ingot.attention_masked.default
_backward = torch.ops.ingot.attention_masked_backward.default


def _compute(ctx, keyset, *inputs):
    *tensors, ctx.scale, ctx.softcap, ctx.precision = inputs
    ctx.save_for_backward(*tensors)
    return in_node(_forward, keyset, inputs)


def _differentiate(ctx, dout):
    options = ctx.scale, ctx.softcap, ctx.precision
    return (None, *_backward(*ctx.saved_tensors, dout, *options), None, None, None, None)


for _operator, _node, _tensors in (
    (_forward, make_node("ingot_attention_masked", _compute, _differentiate), 4),
    (_backward, backward_node("attention_masked", _backward), 5),
):
    _kernel = autograd_kernel(_node, _operator, _tensors)
    _library.impl(_operator, _kernel, "Autograd", with_keyset=True)
