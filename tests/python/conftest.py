import os

import numpy as np
import pytest

# JAX else takes most of a GPU's memory for itself, and PyTorch and CuPy run in the same process.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@pytest.fixture
def make():
    """make(batch, heads, heads_kv, seqlen_q, seqlen_k, head_dim[, head_dim_v]): q, k and v."""
    generator = np.random.default_rng(7)

    def arrays(batch, heads, heads_kv, seqlen_q, seqlen_k, head_dim, head_dim_v=None):
        shapes = (
            (batch, heads, seqlen_q, head_dim),
            (batch, heads_kv, seqlen_k, head_dim),
            (batch, heads_kv, seqlen_k, head_dim_v or head_dim),
        )
        return tuple(generator.standard_normal(shape).astype("float32") for shape in shapes)

    return arrays
