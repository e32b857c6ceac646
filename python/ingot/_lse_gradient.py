"""The gradient of a returned lse, by a backward pass that takes none."""

from ingot._errors import Unsupported

_MAX_HEAD_DIM = 1024


def refuse_float64(dtype):
    """Device reference, which float64 is for, makes delta from p and dp, not from o."""
    if str(dtype).rpartition(".")[2] == "float64":
        raise Unsupported("return_lse: the gradient of lse needs a q of 16 or 32 bits, got float64")


def with_lse_gradient(package, v, o, dout, dlse):
    """(v, o, dout) for a backward pass that carries on dlse, too.

    The gradient of a score is p * (dp - delta) with dp = <dout, v> and delta = <dout, o>, which is
    all that the pass uses o for; lse adds p * dlse. Further columns do just that: there v is 0,
    dout 1 (once) and o, in float32, -dlse, so delta becomes delta - dlse and dp stays. They are
    eight, because rows of a multiple of 16 bytes are read faster. dv has the columns, too; they
    mean nothing. package: jax.numpy or mlx.core.
    """
    head_dim_v = v.shape[3]
    refuse_float64(o.dtype)
    columns = min(8, _MAX_HEAD_DIM - head_dim_v)
    if columns < 1:
        raise Unsupported(
            f"return_lse: the gradient of lse needs head_dim_v < {_MAX_HEAD_DIM}, got {head_dim_v}"
        )

    def widened(x, first=None):
        zeros = package.zeros((*x.shape[:3], columns - (first is not None)), x.dtype)
        return package.concatenate([x, zeros] if first is None else [x, first, zeros], axis=3)

    return (
        widened(v),
        widened(o.astype(package.float32), -dlse.astype(package.float32)[..., None]),
        widened(dout, package.ones((*dout.shape[:3], 1), dout.dtype)),
    )
