from typing import Literal, overload

from jax import Array
from jax.typing import ArrayLike

from ingot import Causal, Precision, Seed, Window

__all__ = ["attention"]

@overload
def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    dropout: float = 0.0,
    seed: Seed | ArrayLike = None,
    prefix_len: ArrayLike | None = None,
    workspace_limit: int | None = None,
    return_lse: Literal[False] = False,
) -> Array: ...
@overload
def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    dropout: float = 0.0,
    seed: Seed | ArrayLike = None,
    prefix_len: ArrayLike | None = None,
    workspace_limit: int | None = None,
    return_lse: Literal[True],
) -> tuple[Array, Array]: ...
