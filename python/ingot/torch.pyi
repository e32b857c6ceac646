from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, overload

from torch import Tensor
from torch.nn.attention.bias import CausalBias

from ingot import Causal, Precision, Seed, Window

__all__ = [
    "attention",
    "fallbacks",
    "ragged_attention",
    "register_flash_attention",
    "scaled_dot_product_attention",
    "sdpa",
]

@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
    seed: Seed | Tensor = None,
    prefix_len: Tensor | None = None,
    workspace_limit: int | None = None,
    return_lse: Literal[False] = False,
) -> Tensor: ...
@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
    seed: Seed | Tensor = None,
    prefix_len: Tensor | None = None,
    workspace_limit: int | None = None,
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def ragged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: Sequence[int],
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    workspace_limit: int | None = None,
    return_lse: Literal[False] = False,
) -> Tensor: ...
@overload
def ragged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: Sequence[int],
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    workspace_limit: int | None = None,
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | CausalBias | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    fallback: Literal["torch"] | None = None,
) -> Tensor: ...
def sdpa(fallback: Literal["torch"] | None = None) -> AbstractContextManager[None]: ...
def register_flash_attention(fallback: Literal["torch"] | None = None) -> bool: ...
def fallbacks() -> dict[str, int]: ...
