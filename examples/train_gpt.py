"""Trains a small GPT on real text twice from the same start, with attention by ingot and by
PyTorch's scaled_dot_product_attention: loss curves, times, a picture.

    pip install . torch transformers matplotlib
    python examples/train_gpt.py [--steps N] [--plot FILE]

The text is the documentation of Python's standard library on this machine, byte by byte.
"""

import argparse
import inspect
import json
import sys
import time
from pathlib import Path

import ingot.transformers  # noqa: F401  registers "ingot"
import torch
from transformers import GPT2Config, GPT2LMHeadModel


def text_bytes(count):
    """Docstrings of loaded standard modules, one after the other."""
    parts = []
    for name in sorted(sys.stdlib_module_names & set(sys.modules)):
        for _, member in inspect.getmembers(sys.modules[name]):
            parts.append(inspect.getdoc(member) or "")
    data = "\n".join(dict.fromkeys(parts)).encode()[:count]
    return torch.tensor(list(data), dtype=torch.long)


def make_model(options):
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=256,
            n_positions=options.seqlen,
            n_layer=options.layers,
            n_embd=64 * options.heads,
            n_head=options.heads,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).train()


class Run:
    """One model, its optimizer and what was seen of it."""

    def __init__(self, name, options):
        self.model = make_model(options)
        self.model.set_attn_implementation(name)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4)
        self.losses, self.seconds = [], []

    def step(self, batch):
        start = time.perf_counter()
        loss = self.model(input_ids=batch, labels=batch).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())
        self.seconds.append(time.perf_counter() - start)


def train(options):
    """Both runs, step by step in turn, on the same batches."""
    data = text_bytes(1_000_000)
    runs = {name: Run(name, options) for name in ("sdpa", "ingot")}
    generator = torch.Generator().manual_seed(1)
    for _ in range(options.steps):
        first = torch.randint(len(data) - options.seqlen, (options.batch,), generator=generator)
        batch = torch.stack([data[i : i + options.seqlen] for i in first.tolist()])
        for run in runs.values():
            run.step(batch)
    differences = [
        abs(a - b) for a, b in zip(runs["sdpa"].losses, runs["ingot"].losses, strict=True)
    ]
    medians = {name: sorted(run.seconds)[len(run.seconds) // 2] for name, run in runs.items()}
    result = {
        "steps": options.steps,
        "bytes_of_text": len(data),
        "first_loss": runs["ingot"].losses[0],
        "last_loss": runs["ingot"].losses[-1],
        "largest_difference": max(differences),
        "median_seconds_of_a_step": medians,
    }
    return result, runs


def plot(runs, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for (name, run), style in zip(runs.items(), ("-", "--"), strict=True):
        axes.plot(run.losses, style, label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a byte")
    axes.legend()
    figure.savefig(path, bbox_inches="tight")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--threads", type=int, help="of PyTorch; default: its own choice")
    parser.add_argument("--plot", type=Path, help="write a picture of the loss curves")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    result, runs = train(options)
    if options.plot:
        plot(runs, options.plot)
    print(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    main()
