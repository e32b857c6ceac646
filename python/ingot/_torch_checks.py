"""What the operators of ingot.torch demand of their arguments. Anybody can call them, so everything
is held against everything else before an address is taken, in the fake (meta) kernels too."""

import torch

from ingot._errors import InvalidArgument, Unsupported
from ingot._parts import ELEMENTS, dropout_of

_DTYPES = frozenset((torch.float32, torch.float16, torch.bfloat16, torch.float64))
_AXES = ("batch", "heads", "seqlen", "head_dim")


def are_tensors(q, k, v, parts=None):
    """They are what PyTorch's dispatcher can take: looked at before it looks for an operator's
    kernel. parts: Parts or None."""
    tensor = torch.Tensor
    are = isinstance(q, tensor) and isinstance(k, tensor) and isinstance(v, tensor)
    if parts is None and are and not (q.is_nested or k.is_nested or v.is_nested):
        return  # small calls notice half a microsecond
    given = {"q": q, "k": k, "v": v}
    if parts is not None:
        named = zip(ELEMENTS, parts.arrays, strict=True)
        given |= {name: x for name, x in named if x is not None}
    for name, x in given.items():
        if not isinstance(x, tensor):
            raise InvalidArgument(f"{name}: must be a torch.Tensor, got {type(x).__name__}")
        if x.is_nested:
            hint = " (ragged_attention takes lengths)" * (name in ("q", "k", "v"))
            raise Unsupported(f"{name}: must not be nested{hint}")


def are_integers(blocks):
    if not isinstance(blocks, list | tuple):
        raise InvalidArgument(f"blocks: must be a list of integers, got {type(blocks).__name__}")
    for kind in set(map(type, blocks)) - {int, torch.SymInt}:
        raise InvalidArgument(f"blocks: must be a list of integers, got a {kind.__name__} in it")
    if blocks and max(map(abs, blocks)) >= 2**63:
        raise InvalidArgument(f"blocks: must be below 2^63, got {max(blocks, key=abs)}")


def forward(q, k, v):
    """q, k and v of attention_forward fit one another. (Each line here is a part of the cost of a
    small call.)"""
    device = q.device
    q_shape = batch, heads, _, head_dim = _shape("q", q, 4, device)
    k_shape, v_shape = _shape("k", k, 4, device), _shape("v", v, 4, device)
    batch_kv, heads_kv, seqlen_k, head_dim_k = k_shape
    if batch_kv != batch or head_dim_k != head_dim:
        _wrong_shape("k", k_shape, (batch, heads_kv, seqlen_k, head_dim))
    if v_shape[:3] != k_shape[:3]:
        _wrong_shape("v", v_shape, (batch_kv, heads_kv, seqlen_k, v_shape[3]))
    if heads < 1 or heads_kv < 1 or heads % heads_kv != 0:
        raise InvalidArgument(f"k: must have heads that divide the {heads} of q, got {heads_kv}")
    return q_shape, k_shape, v_shape


def backward(q, k, v, o, lse, dout):
    """The same of attention_backward."""
    forward(q, k, v)
    device = q.device
    wanted = (*q.shape[:3], v.shape[3])
    for name, x, rank in (("o", o, 4), ("lse", lse, 3), ("dout", dout, 4)):
        shape = _shape(name, x, rank, device)
        if shape != wanted[:rank]:
            _wrong_shape(name, shape, wanted[:rank])
    if lse.dtype != torch.float32:
        raise InvalidArgument(f"lse.dtype: must be torch.float32, got {lse.dtype}")


def real_forward(q, k, v):
    """forward, for tensors whose addresses are taken next."""
    shapes = forward(q, k, v)
    _within_storage("q", q, shapes[0], q.stride())
    _within_storage("k", k, shapes[1], k.stride())
    _within_storage("v", v, shapes[2], v.stride())


def real_backward(q, k, v, o, lse, dout):
    """backward, for tensors whose addresses are taken next."""
    backward(q, k, v, o, lse, dout)
    for name, x in (("q", q), ("k", k), ("v", v), ("o", o), ("dout", dout)):
        _within_storage(name, x, x.shape, x.stride())
    _within_storage("lse", lse, (*lse.shape, 1), (*lse.stride(), 0))


def _within_storage(name, x, shape, stride):
    """No tensor spans more than its storage has: untyped_storage().resize_() does not ask."""
    n0, n1, n2, n3 = shape
    if not (n0 and n1 and n2 and n3):
        return
    s0, s1, s2, s3 = stride
    last = (n0 - 1) * s0 + (n1 - 1) * s1 + (n2 - 1) * s2 + (n3 - 1) * s3
    needed = (x.storage_offset() + last + 1) * x.element_size()
    held = x.untyped_storage().nbytes()
    if held < needed:
        raise InvalidArgument(f"{name}: must have a storage of {needed} bytes or more, got {held}")


def blocks(given, q, k):
    """The parts of ragged_attention lie within q and k, and no two share a query or a key. Kernels
    look for themselves; given is [] without parts."""
    for numbers in given:
        _parts(numbers, q, k)


def _parts(numbers, q, k):
    if len(numbers) % 6 != 0:
        raise InvalidArgument(f"blocks: must be six integers a part, got {len(numbers)}")
    before = None
    for i in range(0, len(numbers), 6):
        part = numbers[i : i + 6]
        ranges = tuple(zip(part[::2], part[1::2], strict=True))
        limits = (("entries", q.shape[0]), ("queries", q.shape[2]), ("keys", k.shape[2]))
        for (what, limit), (first, end) in zip(limits, ranges, strict=True):
            if not 0 <= first <= end <= limit:
                raise InvalidArgument(
                    f"blocks: {what} must be from 0 to {limit}, ascending, got {first} to {end}"
                )
        if before is not None and not _follows(before, ranges):
            raise InvalidArgument(
                f"blocks: part {i // 6} must have later entries than the part before, or the same "
                f"with later queries and later keys, got {part}"
            )
        before = ranges


def _follows(before, part):
    (entries, queries, keys), (next_entries, next_queries, next_keys) = before, part
    if next_entries[0] >= entries[1]:
        return True
    return next_entries == entries and next_queries[0] >= queries[1] and next_keys[0] >= keys[1]


def parts(q, k, optional, dropout):
    """The parts of attention_parts_*, in the order of _parts.ELEMENTS and then the seed, fit q
    and k."""
    batch, heads, seqlen_q = q.shape[:3]
    pairs = (batch, heads, seqlen_q, k.shape[2])
    slopes, bias, mask, sinks, prefix_len, state = optional
    floats = (torch.float32, torch.float16, torch.bfloat16)
    of_sinks = (torch.float32, q.dtype)
    _part("alibi_slopes", slopes, q, (torch.float32,), ((heads,), (batch, heads)))
    _part("bias", bias, q, floats, None)
    _part("mask", mask, q, (torch.bool,), None)
    _part("sinks", sinks, q, of_sinks[: 1 + (q.dtype != torch.float32)], ((heads,),))
    _part("prefix_len", prefix_len, q, (torch.int32,), ((batch,),))
    for name, x in (("bias", bias), ("mask", mask)):
        if x is not None:
            _broadcasts(name, x, pairs)
    dropout_of(dropout)
    _state(state, q, dropout)


def _state(state, q, dropout):
    if state is None:
        if dropout:
            raise InvalidArgument("seed: must be given with dropout, got None")
        return
    if state.dtype != torch.int64 or state.shape != (2,) or state.layout is not torch.strided:
        raise InvalidArgument(
            "seed: must be an integer, a pair of integers or a tensor of two int64 (seed, offset), "
            f"got a tensor of {state.dtype} of shape {tuple(state.shape)}"
        )
    if state.device.type != "cpu" and (state.device != q.device or state.stride(0) != 1):
        raise InvalidArgument(
            f"seed: must be on a CPU or, contiguous, on the device of q, {q.device}, got "
            f"{state.device}"
        )


def _part(name, x, q, dtypes, shapes):
    """shapes: those it may have; None: two to four dimensions."""
    if x is None:
        return
    if x.layout is not torch.strided:
        raise Unsupported(f"{name}: must be a dense tensor, got layout {x.layout}")
    if x.dtype not in dtypes:
        rule = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        more = " (bias adds numbers)" * (name == "mask")
        raise InvalidArgument(f"{name}.dtype: must be {rule}{more}, got {x.dtype}")
    if x.device != q.device:
        raise InvalidArgument(f"{name}: must be on the device of q, {q.device}, got {x.device}")
    if shapes is not None and tuple(x.shape) not in shapes:
        rule = " or ".join(map(str, shapes))
        raise InvalidArgument(f"{name}.shape: must be {rule}, got {tuple(x.shape)}")


def _broadcasts(name, x, pairs):
    if not 2 <= x.dim() <= 4:
        raise InvalidArgument(f"{name}: must have from 2 to 4 dimensions, got {x.dim()}")
    for size, full in zip(x.shape, pairs[4 - x.dim() :], strict=True):
        if size != 1 and size != full:
            raise InvalidArgument(
                f"{name}.shape: must broadcast to {tuple(pairs)}, got {tuple(x.shape)}"
            )


def real_parts(q, k, optional, dropout):
    """parts, for tensors whose addresses are taken next."""
    parts(q, k, optional, dropout)
    for name, x in zip((*ELEMENTS, "seed"), optional, strict=True):
        if x is not None:
            missing = 4 - x.dim()
            shape, stride = (1,) * missing + tuple(x.shape), (0,) * missing + x.stride()
            _within_storage(name, x, shape, stride)


def _shape(name, x, rank, device):
    """The shape of a tensor that is right by itself."""
    shape = x.shape
    if (
        len(shape) == rank
        and x.dtype in _DTYPES
        and x.layout is torch.strided
        and x.device == device
    ):
        return shape
    if len(shape) != rank:
        axes = ", ".join(_AXES[:rank])
        raise InvalidArgument(f"{name}: must have {rank} dimensions ({axes}), got {len(shape)}")
    if x.layout is not torch.strided:
        raise Unsupported(f"{name}: must be a dense tensor, got layout {x.layout}")
    if x.dtype not in _DTYPES:
        raise InvalidArgument(
            f"{name}.dtype: must be float32, float16, bfloat16 or float64, got {x.dtype}"
        )
    raise InvalidArgument(f"{name}: must be on the device of q, {device}, got {x.device}")


def _wrong_shape(name, shape, wanted):
    raise InvalidArgument(f"{name}.shape: must be {tuple(wanted)}, got {tuple(shape)}")
