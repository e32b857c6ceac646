"""attn_implementation="ingot" equals eager attention on models of transformers (random weights)."""

import ingot
import ingot.transformers  # noqa: F401  registers "ingot"
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
SMALL = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "vocab_size": 101}
DECODERS = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=64, n_head=4, vocab_size=101, bos_token_id=1, eos_token_id=2)
    ),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(**SMALL, num_attention_heads=4, num_key_value_heads=2)
    ),
    "mistral with a window": lambda: MistralForCausalLM(
        MistralConfig(**SMALL, num_attention_heads=4, num_key_value_heads=2, sliding_window=6)
    ),
}


def both(model, run):
    results = []
    for name in ("eager", "ingot"):
        model.set_attn_implementation(name)
        results.append(run(model))
    return results


@pytest.fixture(autouse=True, params=DEVICES)
def device(request):
    """The device that tensors and models are made on."""
    torch.manual_seed(5)
    with torch.device(request.param):
        yield request.param


@pytest.mark.parametrize("side", ["none", "left", "right", "holes", "alike"])
def test_encoder(side):
    model = BertModel(BertConfig(**SMALL, num_attention_heads=4)).eval()
    ids = torch.randint(3, 100, (3, 17))
    mask = torch.ones_like(ids)
    if side == "left":
        mask[1, :5] = 0
    if side == "right":
        mask[1, 12:] = 0
        mask[2, 3:] = 0
    if side == "holes":
        mask[1, 4:7] = 0
    if side == "alike":
        mask[:2, 9:] = 0
    with torch.no_grad():
        want, got = both(model, lambda m: m(input_ids=ids, attention_mask=mask).last_hidden_state)
    seen = mask.bool()
    torch.testing.assert_close(got[seen], want[seen], atol=1e-5, rtol=0)


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_prefill_and_training(name):
    model = DECODERS[name]().train()
    without_dropout(model)
    ids = torch.randint(3, 100, (2, 19))

    def run(m):
        m.zero_grad()
        loss = m(input_ids=ids, labels=ids).loss
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in m.parameters()])

    (want_loss, want), (loss, got) = both(model, run)
    torch.testing.assert_close(loss, want_loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("side", ["left", "right", "holes"])
def test_training_with_padding(side):
    model = BertModel(BertConfig(**SMALL, num_attention_heads=4)).train()
    without_dropout(model)
    ids = torch.randint(3, 100, (3, 17))
    mask = torch.ones_like(ids)
    mask[1, {"left": slice(0, 5), "right": slice(9, 17), "holes": slice(4, 7)}[side]] = 0

    def run(m):
        m.zero_grad()
        out = m(input_ids=ids, attention_mask=mask).last_hidden_state
        (out * mask.unsqueeze(-1)).square().sum().backward()
        return torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None])

    want, got = both(model, run)
    torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", DECODERS)
def test_cached_decode_with_padding(name):
    model = DECODERS[name]().eval()
    ids = torch.randint(3, 100, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    want, got = both(
        model,
        lambda m: m.generate(
            ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0
        ),
    )
    assert torch.equal(got, want)


def test_dropout_is_refused():
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=50)).train()
    model.set_attn_implementation("ingot")
    with pytest.raises(ingot.Unsupported, match="dropout: must be 0, got 0.1"):
        model(input_ids=torch.randint(0, 50, (1, 4)))
