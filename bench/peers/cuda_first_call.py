#!/usr/bin/env python3
"""Times the first call of a process on the GPU, and small calls after it; cuda_torch.py runs it.

  INGOT_CACHE_DIR=folder python bench/peers/cuda_first_call.py

Prints a line of JSON: milliseconds of the first call, which compiles its kernels where the cache
does not hold them; microseconds of the host for a small call, its output included.
"""

import json
import statistics
import time

import measure

torch = measure.require("torch")
ingot = measure.require("ingot", ".")


def small_call_us(call):
    samples = []
    for _ in range(50):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(20):
            call()
        samples.append((time.perf_counter() - start) / 20 * 1e6)
    return statistics.median(samples)


def main():
    q, k, v = (torch.randn(1, 1, 1024, 128, device="cuda").bfloat16() for _ in range(3))
    torch.cuda.synchronize()
    ingot.devices()  # opens them; a program does that once
    start = time.perf_counter()
    ingot.attention(q, k, v)
    torch.cuda.synchronize()
    first = (time.perf_counter() - start) * 1e3
    print(
        json.dumps({"first_ms": first, "call_us": small_call_us(lambda: ingot.attention(q, k, v))})
    )


if __name__ == "__main__":
    main()
