from typing import Literal, overload

from mlx.core import array

from ingot import Causal, Precision, Seed, Window

__all__ = ["attention"]

@overload
def attention(
    q: array,
    k: array,
    v: array,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: array | None = None,
    bias: array | None = None,
    alibi_slopes: array | None = None,
    sinks: array | None = None,
    dropout: float = 0.0,
    seed: Seed = None,
    prefix_len: array | None = None,
    workspace_limit: int | None = None,
    return_lse: Literal[False] = False,
    device: str | None = None,
) -> array: ...
@overload
def attention(
    q: array,
    k: array,
    v: array,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: array | None = None,
    bias: array | None = None,
    alibi_slopes: array | None = None,
    sinks: array | None = None,
    dropout: float = 0.0,
    seed: Seed = None,
    prefix_len: array | None = None,
    workspace_limit: int | None = None,
    return_lse: Literal[True],
    device: str | None = None,
) -> tuple[array, array]: ...
