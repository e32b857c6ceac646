"""torch.ops.ingot.attention_parts_*: attention with ALiBi, bias, mask, sinks, prefix and dropout.

Operators of their own, so that a small call without parts pays nothing for them. The seed and
offset of dropout are a tensor: drawn in a graph they differ in each run of it, and in a GPU's
memory a CUDA graph may be replayed with others.
"""

import torch

from ingot import _core, _torch_checks
from ingot._errors import InvalidArgument, Unsupported
from ingot._parts import ELEMENTS, parts_of
from ingot._torch_operators import (
    OPTIONS,
    autograd_kernel,
    backward_node,
    empty_gradients,
    empty_outputs,
    in_node,
    library,
    make_node,
    run,
    with_lse_gradient,
)
from ingot._torch_operators import define as define_operator

_OPERANDS = ("q", "k", "v")
_SAVED = (*_OPERANDS, "o", "lse", "dout")
_OPTIONAL = (*ELEMENTS, "state")  # state: int64 (seed, offset)
_PARTS = ", ".join(f"Tensor? {name}" for name in _OPTIONAL) + ", float dropout, "
_COUNT = len(_OPTIONAL)


def attention(q, k, v, parts, options):
    """(o, lse). parts: Parts of tensors, whose seed is a tensor."""
    return torch.ops.ingot.attention_parts_forward(
        q, k, v, *parts.arrays, parts.seed, parts.dropout, *options
    )


def backward(arrays, parts, options, wanted):
    """(dq, dk, dv) and what of (dbias, dsinks) is wanted."""
    gradients = torch.ops.ingot.attention_parts_backward(
        *arrays, *parts.arrays, _state_of(parts), parts.dropout, *wanted, *options
    )
    return (*gradients[:3], *(x for x, want in zip(gradients[3:], wanted, strict=True) if want))


def parts_of_tensors(
    mask=None, bias=None, alibi_slopes=None, sinks=None, dropout=0.0, seed=None, prefix_len=None
):
    """Parts whose seed is a tensor, or None where all are off."""
    if mask is bias is alibi_slopes is sinks is seed is prefix_len is None and (
        type(dropout) is float and dropout == 0.0
    ):
        return None  # small calls notice a microsecond
    if isinstance(seed, torch.Tensor) and seed.dim() > 0:
        parts = parts_of(mask, bias, alibi_slopes, sinks, dropout, 0, prefix_len)
        if parts is None or not parts.dropout:
            return parts and parts._replace(seed=None)
        return parts._replace(seed=seed)
    parts = parts_of(mask, bias, alibi_slopes, sinks, dropout, seed, prefix_len, _draw)
    return parts and parts._replace(seed=_state_of(parts))


def _draw():
    """Two numbers of PyTorch's generator on the CPU, which torch.manual_seed sets and activation
    checkpointing restores."""
    return torch.randint(-(2**63), 2**63 - 1, (2,), dtype=torch.int64, device="cpu"), 0


def _state_of(parts):
    """The tensor of parts' seed and offset; None without dropout."""
    if not parts.dropout:
        return None
    if isinstance(parts.seed, torch.Tensor):
        return parts.seed
    signed = [x - 2**64 if x >= 2**63 else x for x in (parts.seed, parts.offset)]
    return torch.tensor(signed, dtype=torch.int64, device="cpu")


def _core_parts(optional, dropout):
    """What _core takes: the seed is read where it lies in host memory."""
    *arrays, state = optional
    if not dropout:
        return (*arrays, 0.0, 0, 0, 0)
    if state.is_cpu:
        return (*arrays, dropout, *(x % 2**64 for x in state.tolist()), 0)
    return (*arrays, dropout, 0, 0, state.data_ptr())


@define_operator("attention_parts_forward", _OPERANDS, "Tensor, Tensor", _PARTS)
def _(q, k, v, *more):
    optional, (dropout, *options) = more[:_COUNT], more[_COUNT:]
    _torch_checks.real_forward(q, k, v)
    _torch_checks.real_parts(q, k, optional, dropout)
    o, lse = empty_outputs(q, v)
    run(_core.forward, (q, k, v, o, lse), options, _core_parts(optional, dropout))
    return o, lse


@define_operator(
    "attention_parts_backward",
    _SAVED,
    ", ".join(["Tensor"] * 5),
    _PARTS + "bool bias_grad, bool sinks_grad, ",
)
def _(q, k, v, o, lse, dout, *more):
    """(dq, dk, dv, dbias, dsinks); of the last two those that are not wanted have no elements."""
    optional, (dropout, *wanted), options = (
        more[:_COUNT],
        more[_COUNT : _COUNT + 3],
        more[-OPTIONS:],
    )
    _torch_checks.real_backward(q, k, v, o, lse, dout)
    _torch_checks.real_parts(q, k, optional, dropout)
    gradients = _empty_gradients(q, k, v, optional, wanted)
    given = (x if is_wanted else None for x, is_wanted in zip(gradients[3:], wanted, strict=True))
    parts = _core_parts(optional, dropout)
    run(_core.backward, (q, k, v, o, lse, dout, *gradients[:3]), options, parts, *given)
    return gradients


def _empty_gradients(q, k, v, optional, wanted):
    of = {"bias_grad": (optional[1], "bias"), "sinks_grad": (optional[3], "sinks")}
    more = []
    for (name, (x, what)), is_wanted in zip(of.items(), wanted, strict=True):
        if is_wanted and x is None:
            raise InvalidArgument(f"{name}: must be False without {what}, got True")
        like = x if is_wanted else q
        more.append(like.new_empty(x.shape if is_wanted else (0,)))
    return (*empty_gradients(q, k, v), *more)


def _fake_forward(q, k, v, *more):
    _torch_checks.forward(q, k, v)
    _torch_checks.parts(q, k, more[:_COUNT], more[_COUNT])
    return empty_outputs(q, v)


def _fake_backward(q, k, v, o, lse, dout, *more):
    _torch_checks.backward(q, k, v, o, lse, dout)
    _torch_checks.parts(q, k, more[:_COUNT], more[_COUNT])
    return _empty_gradients(q, k, v, more[:_COUNT], more[_COUNT + 1 : _COUNT + 3])


def _compute(ctx, keyset, *inputs):
    if ctx.needs_input_grad[1 + len(_OPERANDS)]:
        raise Unsupported("alibi_slopes: must not require gradients, ingot has none for it")
    o, lse = in_node(_forward, keyset, inputs)
    tensors = inputs[: len(_OPERANDS) + _COUNT]
    ctx.dropout, *ctx.options = inputs[len(tensors) :]
    ctx.save_for_backward(*tensors, o, lse)
    ctx.set_materialize_grads(False)
    return o, lse


def _differentiate(ctx, dout, dlse):
    nothing = (None,) * (1 + OPTIONS)
    if dout is None and dlse is None:
        return (None,) * (1 + len(_OPERANDS) + _COUNT) + nothing
    q, k, v, *optional, o, lse = ctx.saved_tensors
    head_dim_v = v.shape[3]
    if dlse is not None:
        v, o, dout = with_lse_gradient(v, o, dout, dlse)
    bias, sinks = 4 + _OPTIONAL.index("bias"), 4 + _OPTIONAL.index("sinks")
    wanted = ctx.needs_input_grad[bias], ctx.needs_input_grad[sinks]
    dq, dk, dv, dbias, dsinks = _backward(
        q, k, v, o, lse, dout, *optional, ctx.dropout, *wanted, *ctx.options
    )
    if dlse is not None:
        dv = dv[..., :head_dim_v]
    of_parts = dict.fromkeys(_OPTIONAL)
    of_parts |= {"bias": dbias if wanted[0] else None, "sinks": dsinks if wanted[1] else None}
    return (None, dq, dk, dv, *of_parts.values(), *nothing)


def _one_after_another(operator):
    """vmap: a call for each sample. Samples are no entries of a larger batch here: dropout would
    take other weights of each, and gradients of what is broadcast would be sums over all."""

    def rule(info, in_dims, *inputs):
        if info.batch_size == 0:
            raise Unsupported("attention: must have at least one sample in vmap, got 0")
        samples = [
            operator(
                *(
                    x if dim is None else x.select(dim, i)
                    for x, dim in zip(inputs, in_dims, strict=True)
                )
            )
            for i in range(info.batch_size)
        ]
        outputs = tuple(torch.stack(x) for x in zip(*samples, strict=True))
        return outputs, (0,) * len(outputs)

    return rule


_forward = torch.ops.ingot.attention_parts_forward.default
_backward = torch.ops.ingot.attention_parts_backward.default
for _operator, _fake, _node, _tensors in (
    (
        _forward,
        _fake_forward,
        make_node("ingot_attention_parts", _compute, _differentiate),
        len(_OPERANDS) + _COUNT,
    ),
    (
        _backward,
        _fake_backward,
        backward_node("attention_parts", _backward),
        len(_SAVED) + _COUNT,
    ),
):
    torch.library.register_fake(_operator, _fake, lib=library)
    torch.library.register_vmap(_operator, _one_after_another(_operator), lib=library)
    library.impl(
        _operator, autograd_kernel(_node, _operator, _tensors), "Autograd", with_keyset=True
    )
