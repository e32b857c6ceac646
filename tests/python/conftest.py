import os
import sys

import numpy as np
import pytest

# JAX else takes most of a GPU's memory for itself, and PyTorch and CuPy run in the same process.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# Two devices of JAX's on a CPU, for what is sharded.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)


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


@pytest.fixture(scope="module")
def one_thread():
    """PyTorch on one thread: in small models, several only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def transformers_refuses():
    """What a test or an example registered with transformers does not outlive it."""
    yield
    if "ingot.transformers" in sys.modules:
        sys.modules["ingot.transformers"].register()
