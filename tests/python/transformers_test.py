"""attn_implementation="ingot" equals eager attention on models of transformers (random weights)."""

import ingot
import pytest
import torch
from ingot.transformers import attention_forward
from plain_torch import dense_attention
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    BigBirdPegasusConfig,
    BloomConfig,
    BloomForCausalLM,
    DebertaConfig,
    FalconConfig,
    GemmaConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PegasusConfig,
    PegasusModel,
    SiglipVisionConfig,
    T5Config,
    T5Model,
)

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
SMALL = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "vocab_size": 101}
LAYERS = {"layers": 2, "attention_heads": 4, "ffn_dim": 96}
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
def device(request, one_thread):
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


def test_training_with_dropout_is_repeatable_and_drops():
    config = GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=50)
    config.resid_pdrop = config.embd_pdrop = 0.0
    config.attn_pdrop = 0.5
    model = GPT2LMHeadModel(config).train()
    model.set_attn_implementation("ingot")
    ids = torch.randint(0, 50, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0

    def run(seed, **more):
        torch.manual_seed(seed)
        model.zero_grad()
        logits = model(input_ids=ids, **more).logits
        logits.square().sum().backward()
        return torch.cat([logits.detach().flatten(), *(p.grad.flatten() for p in inputs)])

    inputs = [p for p in model.parameters()]
    for more in ({}, {"attention_mask": mask}):
        assert torch.equal(run(1, **more), run(1, **more))
        assert not torch.equal(run(1, **more), run(2, **more))


@pytest.mark.parametrize("padded", [False, True])
def test_the_weights_that_dropout_takes_are_those_of_the_seed(padded):
    """With one-hot values the output is the weights."""
    q, k = torch.randn(2, 2, 2, 8, 16)
    one_hot = torch.eye(8).expand(2, 2, 8, 8)
    mask = torch.ones(2, 1, 8, 8, dtype=torch.bool).tril()
    if padded:
        mask[1, :, :, 2:5:2] = False
    torch.manual_seed(1)
    got, _ = attention_forward(torch.nn.Module(), q, k, one_hot, mask, dropout=0.5)
    want = dense_attention(q, k, one_hot, mask).transpose(1, 2)
    kept = got != 0
    torch.testing.assert_close(got[kept].double(), 2 * want[kept], atol=1e-5, rtol=0)
    assert 0.3 < kept.sum() / (want != 0).sum() < 0.7


# Whole models


@pytest.mark.parametrize("queries", [3, 10, 14])
def test_cross_attention_keeps_all_queries_of_a_padded_encoder(queries):
    layers = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in LAYERS.items()}
    model = PegasusModel(PegasusConfig(d_model=64, vocab_size=101, **layers)).eval()
    ids = torch.randint(3, 100, (2, 10))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    run = lambda m: m(  # noqa: E731
        input_ids=ids, attention_mask=mask, decoder_input_ids=ids[:, [0] * queries]
    ).last_hidden_state
    with torch.no_grad():
        want, got = both(model, run)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_packed_sequences_do_not_see_each_other():
    model = DECODERS["mistral with a window"]().eval()
    ids = torch.randint(3, 100, (1, 17))
    lengths = [2, 9, 6]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    starts = torch.tensor([0, 2, 11, 17], dtype=torch.int32)
    run = lambda m: m(input_ids=ids, position_ids=positions, use_cache=False).logits  # noqa: E731
    with torch.no_grad():
        want, got = both(model, run)
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
        lengths = {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts}
        lengths |= {"max_length_q": 9, "max_length_k": 9}
        got = model(input_ids=ids, position_ids=positions, use_cache=False, **lengths).logits
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
        q, k, v = torch.randn(3, 1, 2, 17, 8)
        got, _ = attention_forward(torch.nn.Module(), q, k, v, None, cu_seq_lens_q=starts)
    mask = positions.cumsum(1) * 0 + torch.repeat_interleave(torch.tensor([0, 1, 2]), starts.diff())
    causal = torch.ones(17, 17, dtype=torch.bool).tril()
    want = dense_attention(q, k, v, causal & (mask == mask.mT)).transpose(1, 2)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=0)


def test_image_tokens_see_each_other():
    vision = SiglipVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
        image_size=16, patch_size=8, projection_dim=64, vision_use_head=False,
    )  # fmt: skip
    text = GemmaConfig(**SMALL, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    model = PaliGemmaForConditionalGeneration(
        PaliGemmaConfig(
            vision_config=vision.to_dict(),
            text_config=text.to_dict(),
            image_token_index=99,
            projection_dim=64,
        )
    ).eval()
    ids = torch.tensor([[99, 99, 99, 99, 5, 6, 7, 8]])
    kinds = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1]])
    more = {"pixel_values": torch.ones(1, 3, 16, 16), "token_type_ids": kinds}
    run = lambda m: m(  # noqa: E731
        input_ids=ids, attention_mask=torch.ones_like(ids), **more
    ).logits
    with torch.no_grad():
        want, got = both(model, run)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def small_t5():
    config = T5Config(d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, vocab_size=101)
    return T5Model(config).eval()


def test_a_position_bias_is_learned():
    model = small_t5()
    ids = torch.randint(3, 100, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0

    def run(m):
        m.zero_grad()
        m(
            input_ids=ids, attention_mask=mask, decoder_input_ids=ids, use_cache=False
        ).last_hidden_state.square().sum().backward()
        return [p.grad for p in m.parameters() if p.grad is not None]

    want, got = both(model, run)
    names = [n for n, p in model.named_parameters() if p.grad is not None]
    assert any("relative_attention_bias" in name for name in names)
    for name, x, y in zip(names, got, want, strict=True):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-3, msg=name)


def test_sinks_of_a_model_are_learned():
    more = {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 16, "sliding_window": 4}
    config = GptOssConfig(**SMALL, num_attention_heads=4, num_key_value_heads=2, **more)
    model = GptOssForCausalLM(config).eval()
    ids = torch.randint(3, 100, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0

    def run(m):
        m.zero_grad()
        core = m.model.layers[0].self_attn
        logits = m(input_ids=ids, attention_mask=mask, use_cache=False).logits
        logits[mask.bool()].square().sum().backward()
        return logits[mask.bool()].detach(), core.sinks.grad, core.q_proj.weight.grad

    for x, y in zip(*both(model, run), strict=True):
        torch.testing.assert_close(y, x, atol=1e-5, rtol=1e-3)


# What ingot does not compute


@pytest.fixture
def fallback():
    ingot.transformers.register(fallback="torch")
    yield
    ingot.transformers.register()


def test_fallback_runs_in_torch_with_one_warning_and_counts(fallback):
    model = DECODERS["gpt2"]().eval()
    ids = torch.randint(3, 100, (2, 9))
    run = lambda m: torch.cat(m(input_ids=ids, output_attentions=True).attentions)  # noqa: E731
    before = sum(ingot.torch.fallbacks().values())
    with torch.no_grad(), pytest.warns(UserWarning, match="in PyTorch: output_attentions") as seen:
        want, got = both(model, run)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)
    assert len([w for w in seen if "runs in PyTorch" in str(w.message)]) == 1
    assert sum(ingot.torch.fallbacks().values()) == before + 2


def test_fallback_is_none_or_torch():
    with pytest.raises(ingot.InvalidArgument, match='fallback: must be None or "torch", got True'):
        ingot.transformers.register(fallback=True)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_weights_that_are_asked_for_are_refused(name):
    model = DECODERS[name]().eval()
    model.set_attn_implementation("ingot")
    with pytest.raises(ingot.Unsupported, match="output_attentions: must be False"):
        model(input_ids=torch.randint(3, 100, (1, 5)), output_attentions=True)


OWN_CODE = {
    "BLOOM": (lambda: BloomConfig(hidden_size=64, n_layer=1, n_head=4), "eager", "BloomAttention"),
    "Falcon": (
        lambda: FalconConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=4),
        "eager",
        "FalconAttention",
    ),
    "DeBERTa": (
        lambda: DebertaConfig(**SMALL, num_attention_heads=4),
        "eager",
        "DisentangledSelfAttention",
    ),
    "BigBirdPegasus, of which it is a part": (
        lambda: BigBirdPegasusConfig(
            d_model=64,
            attention_type="original_full",
            vocab_size=101,
            **{
                f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in LAYERS.items()
            },
        ),
        "ingot",
        "BigBirdPegasusSelfAttention",
    ),
}


@pytest.mark.parametrize("name", OWN_CODE)
def test_attention_that_is_code_of_its_own_is_said(name):
    config, implementation, code = OWN_CODE[name]
    with pytest.warns(UserWarning, match=f"does not call ingot .*{code}"):
        model = AutoModel.from_config(config(), attn_implementation="ingot")
    assert model.config._attn_implementation == implementation


def test_a_model_with_attention_of_its_own_is_still_causal():
    config = BloomConfig(vocab_size=99, hidden_size=64, n_layer=1, n_head=4)
    with pytest.warns(UserWarning, match="attention that is code of its own does not call ingot"):
        model = BloomForCausalLM._from_config(config, attn_implementation="ingot").eval()
    assert model.config._attn_implementation == "eager"
    a, b = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[5, 6, 7, 9]])
    with torch.no_grad():
        assert torch.equal(model(a).logits[0, :3], model(b).logits[0, :3])


def test_a_compiled_model_has_one_graph_under_a_mask():
    model = DECODERS["llama"]().eval()
    ids = torch.randint(3, 100, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    seen = mask.bool()

    def loss_and_gradients(run):
        model.zero_grad()
        loss = run(input_ids=ids, attention_mask=mask, use_cache=False).logits[seen].square().mean()
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in model.parameters())]

    want = loss_and_gradients(model)
    model.set_attn_implementation("ingot")
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    got = loss_and_gradients(compiled)
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-3)
