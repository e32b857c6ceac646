"""Attention in NumPy's float64, and a reader and writer of safetensors, written for the tests."""

import json
import struct

import numpy


def visible(rows, cols, causal, window):
    """[rows, cols]: which keys each row sees."""
    shift = 0 if causal == "top_left" else cols - rows
    position = numpy.arange(rows)[:, None] + shift
    col = numpy.arange(cols)[None, :]
    left, right = window
    mask = numpy.ones((rows, cols), bool)
    if causal != "none":
        mask &= col <= position
    if left >= 0:
        mask &= col >= position - left
    if right >= 0:
        mask &= col <= position + right
    return mask


def distance(rows, cols, causal):
    """[rows, cols]: how far each key is from each row."""
    shift = 0 if causal == "top_left" else cols - rows
    return numpy.abs(numpy.arange(cols)[None, :] - numpy.arange(rows)[:, None] - shift)


def summed_to(x, shape):
    """x, summed over the axes that an array of this shape repeats."""
    full = (1,) * (x.ndim - len(shape)) + tuple(shape)
    axes = tuple(i for i in range(x.ndim) if full[i] == 1)
    return x.sum(axes, keepdims=True).reshape(shape)


def attention(
    q,
    k,
    v,
    dout=None,
    causal="none",
    window=(-1, -1),
    scale=None,
    softcap=0.0,
    precision="highest",
    mask=None,
    bias=None,
    alibi=None,
    sinks=None,
    prefix_len=None,
):
    """Arrays [batch, heads, seqlen, dim] to a dictionary of o, lse and, with dout, the gradients
    of q, k, v, bias and sinks. mask and bias broadcast to [batch, heads, rows, cols]; alibi is
    [heads] or [batch, heads], sinks [heads], prefix_len [batch]."""
    q, k, v = (x.astype(numpy.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    keys, values = k.repeat(group, 1), v.repeat(group, 1)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    score = scale * q @ keys.swapaxes(-1, -2)
    slope = numpy.ones_like(score)
    if softcap:
        slope = 1 - numpy.tanh(score / softcap) ** 2
        score = softcap * numpy.tanh(score / softcap)
    rows, cols = q.shape[2], k.shape[2]
    if alibi is not None:
        score = score - alibi[..., None, None] * distance(rows, cols, causal)
    if bias is not None:
        score = score + bias
    seen = visible(rows, cols, causal, window)
    if prefix_len is not None:
        seen = seen | (numpy.arange(cols) < prefix_len[:, None, None, None])
    if mask is not None:
        seen = seen & (mask != 0)
    score = numpy.where(seen, score, -numpy.inf)
    sink = numpy.full((1, 1, 1), -numpy.inf) if sinks is None else sinks[:, None, None]
    top = numpy.maximum(score.max(-1, keepdims=True), sink)
    top = numpy.where(numpy.isfinite(top), top, 0)
    sink_weight = numpy.exp(sink - top)
    total = numpy.exp(score - top).sum(-1, keepdims=True) + sink_weight
    weight = numpy.exp(score - top) / numpy.where(total > 0, total, 1)
    with numpy.errstate(divide="ignore"):
        result = {"o": weight @ values, "lse": (numpy.log(total) + top)[..., 0]}
    if dout is None:
        return result
    dout = dout.astype(numpy.float64)
    dweight = dout @ values.swapaxes(-1, -2)
    delta = (dweight * weight).sum(-1, keepdims=True)
    dscore = weight * (dweight - delta)
    if bias is not None:
        result["dbias"] = summed_to(dscore, bias.shape)
    if sinks is not None:
        result["dsinks"] = (-sink_weight / total * delta).sum((0, 2, 3))
    dscore = dscore * slope * scale

    def over_group(x):
        return x.reshape(x.shape[0], k.shape[1], group, *x.shape[2:]).sum(2)

    result["dq"] = dscore @ keys
    result["dk"] = over_group(dscore.swapaxes(-1, -2) @ q)
    result["dv"] = over_group(weight.swapaxes(-1, -2) @ dout)
    return result


def to_bf16(x):
    """float32 values to the 16 upper bits, rounded to nearest even."""
    bits = x.astype(numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def from_bf16(bits):
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)


NAMES = {"float16": "F16", "float32": "F32", "float64": "F64", "uint16": "BF16", "int64": "I64"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}


def safetensors_bytes(tensors, metadata=None):
    """uint16 arrays are written as BF16."""
    header, position = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        end = position + array.nbytes
        header[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(x.tobytes() for x in tensors.values())


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        array = numpy.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = from_bf16(array) if entry["dtype"] == "BF16" else array
    return tensors
