"""The operators torch.ops.ingot.*: what runs, what shape comes out, gradients and vmap.

PyTorch's dispatcher does the transformations, for an operator of its own as for one of ours: each
has a kernel for all devices, a fake one for torch.compile, one for autograd and one for vmap.
"""

from pathlib import Path

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from ingot import _core, _torch_checks
from ingot._errors import InvalidArgument, Unsupported
from ingot._lse_gradient import refuse_float64

# PyTorch's OpenMP threads wait busily after each operation: on a CPU ingot works on them, not
# beside them. False, and threads of ingot's own, where PyTorch has no OpenMP to call (macOS).
_core.use_openmp_of(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))


def run(function, arguments, options, *more):
    """function(arguments, options, device, stream, more) of _core, in the order of PyTorch's own
    work. The arguments are q and more tensors; more: parts and what belongs to them, or nothing."""
    device = arguments[0].device
    if device.type == "cpu":
        return function(*arguments, *options, "", 0, *more)
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device).cuda_stream
        return function(*arguments, *options, "", stream, *more)
    if device.type != "mps":
        raise Unsupported(f"q: must be on a CPU, CUDA or MPS device, got {device}")
    from ingot import _torch_mps

    slices, more = _torch_mps.views((arguments, more))
    return _torch_mps.encode(lambda commands: function(*slices, *options, "", commands, *more))


# torch.library.custom_op would do the same by wrappers that double the cost of a small call.
_OPTIONS = (
    "int causal, int window_left, int window_right, float scale, float softcap, int precision, "
    "int workspace_limit"
)
OPTIONS = 7  # in number
_OPERANDS = ("q", "k", "v")
_SAVED = (*_OPERANDS, "o", "lse", "dout")
library = torch.library.Library("ingot", "DEF")


def define(name, tensors, results, more=""):
    """Registers torch.ops.ingot.<name>(tensors, more, options); what it is decorated on computes it
    for all devices. Outputs follow the memory order of q, so the compiler must keep that."""
    kept = getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order)
    schema = f"{name}({', '.join(f'Tensor {t}' for t in tensors)}, {more}{_OPTIONS}) -> ({results})"
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag, kept))
    return lambda function: library.impl(name, function, "CompositeExplicitAutograd")


@define("attention_forward", _OPERANDS, "Tensor, Tensor")
def _(q, k, v, *options):
    _torch_checks.real_forward(q, k, v)
    o, lse = empty_outputs(q, v)
    run(_core.forward, (q, k, v, o, lse), options)
    return o, lse


@define("attention_backward", _SAVED, "Tensor, Tensor, Tensor")
def _(q, k, v, o, lse, dout, *options):
    _torch_checks.real_backward(q, k, v, o, lse, dout)
    gradients = empty_gradients(q, k, v)
    run(_core.backward, (q, k, v, o, lse, dout, *gradients), options)
    return gradients


_BLOCKS = "int[] blocks, "


@define("attention_ragged_forward", _OPERANDS, "Tensor, Tensor", _BLOCKS)
def _(q, k, v, blocks, *options):
    _torch_checks.real_forward(q, k, v)
    o, lse = empty_outputs(q, v)
    o.zero_()
    lse.fill_(float("-inf"))
    run(_core.forward_ragged, (q, k, v, o, lse), (blocks, *options))
    return o, lse


@define("attention_ragged_backward", _SAVED, "Tensor, Tensor, Tensor", _BLOCKS)
def _(q, k, v, o, lse, dout, blocks, *options):
    _torch_checks.real_backward(q, k, v, o, lse, dout)
    gradients = tuple(x.zero_() for x in empty_gradients(q, k, v))
    run(_core.backward_ragged, (q, k, v, o, lse, dout, *gradients), (blocks, *options))
    return gradients


def empty_outputs(q, v):
    """o in the memory order of q where that is (batch, seqlen, heads, head_dim), so that a
    transpose and reshape behind it need no copy; lse beside it."""
    batch, heads, seqlen, _ = q.shape
    if heads > 1 and q.stride(1) < q.stride(2):
        o = q.new_empty((batch, seqlen, heads, v.shape[3])).transpose(1, 2)
    else:
        o = q.new_empty((batch, heads, seqlen, v.shape[3]))
    return o, q.new_empty((batch, heads, seqlen), dtype=torch.float32)


def empty_gradients(q, k, v):
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))


def _fake_forward(q, k, v, *more):
    _torch_checks.forward(q, k, v)
    _torch_checks.blocks(more[:-OPTIONS], q, k)
    return empty_outputs(q, v)


def _fake_backward(q, k, v, o, lse, dout, *more):
    _torch_checks.backward(q, k, v, o, lse, dout)
    _torch_checks.blocks(more[:-OPTIONS], q, k)
    return empty_gradients(q, k, v)


def _redispatch(operator, keyset, inputs):
    """The operator without its autograd; within torch.func, the whole of it one level below."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator.redispatch(keyset & torch._C._after_autograd_keyset, *inputs)


def in_node(operator, keyset, inputs):
    """The same while a node of the graph is made, which has switched both kinds of derivatives off:
    the level below has its own."""
    if not torch._C._are_functorch_transforms_active():
        return _redispatch(operator, keyset, inputs)
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
        return _redispatch(operator, keyset, inputs)


def _refuse_forward_mode(*_):
    raise Unsupported("attention: has no forward-mode derivative (jvp, jacfwd, dual numbers)")


def _forward_node(kind, forward, backward):
    def compute(ctx, keyset, *inputs):
        o, lse = in_node(forward, keyset, inputs)
        q, k, v, *ctx.options = inputs
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.set_materialize_grads(False)
        return o, lse

    def differentiate(ctx, dout, dlse):
        nothing = (None,) * len(ctx.options)
        if dout is None and dlse is None:
            return (None, None, None, None, *nothing)
        q, k, v, o, lse = ctx.saved_tensors
        if dlse is None:
            return (None, *backward(q, k, v, o, lse, dout, *ctx.options), *nothing)
        wide_v, o, dout = with_lse_gradient(v, o, dout, dlse)
        dq, dk, dv = backward(q, k, wide_v, o, lse, dout, *ctx.options)
        return (None, dq, dk, dv[..., : v.shape[3]], *nothing)

    return make_node(f"ingot_{kind}", compute, differentiate)


_MAX_HEAD_DIM = 1024


def with_lse_gradient(v, o, dout, dlse):
    """(v, o, dout) for a backward pass that carries on dlse, too.

    The gradient of a score is p * (<dout, v> - <dout, o>), and o is used for nothing else; lse adds
    p * dlse. Further columns do that: there v is 0, dout is 1 (once) and o, in float32, is -dlse.
    They are eight, for rows of a multiple of 16 bytes. dv gets columns, too, which mean nothing.
    """
    refuse_float64(o.dtype)
    columns = min(8, _MAX_HEAD_DIM - v.shape[3])
    if columns < 1:
        raise Unsupported(
            f"return_lse: the gradient of lse needs head_dim_v < {_MAX_HEAD_DIM}, got {v.shape[3]}"
        )
    dout = torch.zeros_like(o) if dout is None else dout
    ones = torch.ones_like(dlse, dtype=dout.dtype).unsqueeze(3)
    first = (None, -dlse.float().unsqueeze(3), ones)
    return [_widened(x, columns, one) for x, one in zip((v, o.float(), dout), first, strict=True)]


def _widened(x, columns, first):
    shape = (*x.shape[:3], columns - (first is not None))
    return torch.cat([x, *([] if first is None else [first]), x.new_zeros(shape)], 3)


def backward_node(kind, backward):
    def compute(_, keyset, *inputs):
        return in_node(backward, keyset, inputs)

    def differentiate(*_):
        raise Unsupported("attention_backward: has no derivative of its own (double backward)")

    return make_node(f"ingot_{kind}_backward", compute, differentiate)


def make_node(name, compute, differentiate):
    """A kind of node of autograd's graph. It knows one level of torch.func's transformations, as
    PyTorch's own nodes do; the dispatcher goes through the levels."""
    functions = {"forward": compute, "backward": differentiate, "jvp": _refuse_forward_mode}
    members = {name: staticmethod(function) for name, function in functions.items()}
    return type(name, (_SingleLevelFunction,), members)


def autograd_kernel(node, operator, count):
    """The first `count` inputs are tensors."""

    def kernel(keyset, *inputs):
        recorded = torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs[:count])
        if not recorded and forward_ad._current_level < 0:
            return _redispatch(operator, keyset, inputs)
        if not torch._C._are_functorch_transforms_active():
            return node.apply(keyset, *inputs)
        with enable_single_level_autograd_function():
            return node.apply(keyset, *inputs)

    return kernel


def _vmap_rule(operator, names):
    """One call for all samples: they are entries of one larger batch."""

    def rule(info, in_dims, *inputs):
        n, count = info.batch_size, len(names)
        given = zip(names, inputs[:count], in_dims[:count], strict=True)
        tensors = [_samples_as_entries(name, x, dim, n) for name, x, dim in given]
        batch = tensors[0].shape[0] // n
        more = [_blocks_of_samples(x, n, batch) if isinstance(x, list) else x for x in inputs]
        outputs = operator(*tensors, *more[count:])
        return tuple(x.unflatten(0, (n, batch)) for x in outputs), (0,) * len(outputs)

    return rule


def _samples_as_entries(name, x, dim, n):
    rank = 3 if name == "lse" else 4
    if x.dim() - (dim is not None) != rank:
        raise InvalidArgument(
            f"{name}: must have {rank} dimensions within vmap, got {x.dim() - (dim is not None)}"
        )
    x = x.unsqueeze(0).expand(n, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def _blocks_of_samples(blocks, n, batch):
    return [
        number + sample * batch if i % 6 < 2 else number
        for sample in range(n)
        for i, number in enumerate(blocks)
    ]


def _register(kind):
    """All but the computation of torch.ops.ingot.<kind>_forward and <kind>_backward."""
    forward, backward = (
        getattr(torch.ops.ingot, f"{kind}_{which}").default for which in ("forward", "backward")
    )
    nodes = (_forward_node(kind, forward, backward), backward_node(kind, backward))
    fakes = (_fake_forward, _fake_backward)
    operators, names = (forward, backward), (_OPERANDS, _SAVED)
    for operator, node, fake, of in zip(operators, nodes, fakes, names, strict=True):
        kernel = autograd_kernel(node, operator, len(of))
        torch.library.register_fake(operator, fake, lib=library)
        torch.library.register_vmap(operator, _vmap_rule(operator, of), lib=library)
        library.impl(operator, kernel, "Autograd", with_keyset=True)


_register("attention")
_register("attention_ragged")
attention_forward = torch.ops.ingot.attention_forward
attention_ragged_forward = torch.ops.ingot.attention_ragged_forward
