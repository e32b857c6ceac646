#!/usr/bin/env python3
"""What the parts of attention cost on an NVIDIA GPU, beside plain attention and PyTorch's kernels.

  python bench/peers/cuda_parts.py                     every part, long and short
  python bench/peers/cuda_parts.py --filter bias --json r.json

One process, the calls of a case in turns A B, B A; medians of milliseconds, forward and backward
(by autograd). `plain` is ingot without the part; peers are PyTorch's cuDNN, FlashAttention and
memory-efficient back ends with the same operands, where they take them. bf16, 16 heads, head_dim
128, inputs random normal.

Needs: pip install . torch
"""

import argparse
import json
import re

import measure
from cuda_torch import short

torch = measure.require("torch")
ingot_torch = measure.require("ingot.torch", ".").torch

SHAPES = {"1x16x16384x128": (1, 16, 16384, 128), "32x16x512x128": (32, 16, 512, 128)}
BACKENDS = {"cudnn": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION"}
BACKENDS["efficient"] = "EFFICIENT_ATTENTION"


def half_of_the_blocks(rows):
    """A mask of 256 x 256 blocks, every second of which is empty."""
    block = torch.arange(rows, device="cuda") // 256
    return ((block[:, None] + block[None, :]) % 2 == 0)[None, None]


def parts(shape):
    """{name: what makes (options of plain, of ingot, of PyTorch or None)}."""
    _, heads, rows, _ = shape
    slopes = 2.0 ** (-8 * torch.arange(1, heads + 1, device="cuda") / heads)
    sinks = torch.randn(heads, device="cuda")
    causal = {"causal": "top_left"}

    def with_bias(gradient):
        x = torch.randn(1, heads, rows, rows, device="cuda", dtype=torch.bfloat16)
        x.requires_grad_(gradient)
        return {}, {"bias": x}, {"attn_mask": x}

    mask = half_of_the_blocks(rows)
    return {
        "alibi causal": lambda: (causal, causal | {"alibi_slopes": slopes}, None),
        "sinks causal": lambda: (causal, causal | {"sinks": sinks}, None),
        "mask": lambda: ({}, {"mask": mask}, {"attn_mask": mask}),
        "dropout": lambda: ({}, {"dropout": 0.1}, {"dropout_p": 0.1}),
        "bias": lambda: with_bias(False),
        "bias and dbias": lambda: with_bias(True),
    }


def torch_attention(backend):
    def attention(q, k, v, **options):
        with torch.nn.attention.sdpa_kernel(getattr(torch.nn.attention.SDPBackend, backend)):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    return attention


def calls_of(attention, tensors, options):
    """(forward, backward) that queue one call each."""
    *inputs, dout = tensors
    leaves = [x.detach().requires_grad_() for x in inputs]
    wanted = leaves + [
        x for x in options.values() if isinstance(x, torch.Tensor) and x.requires_grad
    ]
    o = attention(*leaves, **options)

    def forward():
        with torch.no_grad():
            attention(*inputs, **options)

    return forward, lambda: torch.autograd.grad(o, wanted, dout, retain_graph=True)


def run_case(shape, options, pause):
    """{"forward" or "backward": {name: milliseconds}}, and why others are absent."""
    plain, ours, theirs = options
    tensors = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
    entrants = {"plain": (ingot_torch.attention, plain), "ingot": (ingot_torch.attention, ours)}
    if theirs is not None:
        entrants |= {name: (torch_attention(x), theirs) for name, x in BACKENDS.items()}
    calls, absent = {}, {}
    for name, (attention, chosen) in entrants.items():
        try:
            calls[name] = calls_of(attention, tensors, chosen)
            for call in calls[name]:
                call()
            torch.cuda.synchronize()
        except (RuntimeError, MemoryError) as error:
            calls.pop(name, None)
            absent[name] = " ".join(str(error).split())[:200]
    times = {}
    for i, kind in enumerate(("forward", "backward")):
        medians = short({name: call[i] for name, call in calls.items()}, pause)
        times[kind] = {name: 1e3 * seconds for name, seconds in medians.items()}
    return times | {"absent": absent}


def line(name, times):
    cells = [f"{n} {x:.3f}" for n, x in times.items()]
    return f"{name:45} {times['ingot'] / times['plain']:5.2f} of plain   {'  '.join(cells)}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--filter", default="", help="regular expression on the names of the cases")
    parser.add_argument("--pause", type=float, default=0.1, help="before short calls (default 0.1)")
    parser.add_argument("--json", metavar="FILE", help="write everything measured")
    options = parser.parse_args()
    report = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cases": {}}
    print(f"{report['device']}, PyTorch {report['torch']}; milliseconds")
    for label, shape in SHAPES.items():
        for part, make in parts(shape).items():
            name = f"{part} {label}"
            if not re.search(options.filter, name):
                continue
            result = report["cases"][name] = run_case(shape, make(), options.pause)
            for kind in ("forward", "backward"):
                print(line(f"{name} {kind}", result[kind]), flush=True)
            torch.cuda.empty_cache()
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
