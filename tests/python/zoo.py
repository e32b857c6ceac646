"""Small models of the families of transformers with random weights, and what is asked of each: that
attn_implementation="ingot" gives what eager attention gives, or says why it does not."""

import inspect
import warnings

import ingot
import ingot.transformers
import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

_SIZES = {
    64: "hidden_size d_model n_embd dim embed_dim emb_dim word_embed_proj_dim embedding_size "
    "encoder_hidden_size decoder_hidden_size projection_dim hidden_dim_size text_embed_dim",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers top_k "
    "num_encoder_layers num_decoder_layers num_key_value_heads num_kv_heads encoder_num_layers "
    "num_experts_per_tok moe_top_k linear_num_key_heads num_global_key_value_heads num_hash_layers "
    "decoder_num_layers encoder_num_hidden_layers decoder_num_hidden_layers",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads num_experts "
    "decoder_attention_heads num_local_experts n_routed_experts linear_num_value_heads "
    "moe_num_experts encoder_num_attention_heads decoder_num_attention_heads",
    16: "head_dim attention_head_size d_kv kv_channels kv_lora_rank qk_nope_head_dim v_head_dim "
    "linear_key_head_dim linear_value_head_dim mamba_d_head mamba_head_dim global_head_dim "
    "num_mel_bins hidden_size_per_layer_input",
    96: "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff n_inner hidden_dim "
    "mlp_dim dim_feedforward",
    32: "moe_intermediate_size shared_expert_intermediate_size q_lora_rank image_size "
    "moe_shared_expert_intermediate_size expert_ffn_hidden_size",
    8: "qk_rope_head_dim rotary_dim patch_size attention_chunk_size mamba_d_state ssm_state_size "
    "mamba_n_heads mamba_num_heads mamba_state_size",
    128: "max_position_embeddings n_positions max_source_positions max_target_positions "
    "max_seq_len block_size",
    101: "vocab_size text_vocab_size decoder_vocab_size vocab_size_per_layer_input",
    6: "sliding_window attention_window",
    1: "bos_token_id decoder_start_token_id n_group topk_group num_nextn_predict_layers",
    0: "pad_token_id",
    3: "eos_token_id",
}
_TWO_TOWERS = (
    "altclip chinese_clip clip clipseg metaclip_2 siglip siglip2 x_clip align blip".split()
)
_SIZE_OF = {name: size for size, names in _SIZES.items() for name in names.split()}
_MOST_PARAMETERS = 6_000_000
_LENGTH = 13


def small_config(cls):
    """A config of this class with small numbers instead of its own."""
    default = cls()
    changed = {}
    for name, value in vars(default).items():
        if isinstance(value, transformers.PreTrainedConfig):
            changed[name] = small_config(type(value)).to_dict()
        elif isinstance(value, float) and "drop" in name:
            changed[name] = 0.0
        elif name in _SIZE_OF and isinstance(value, int):
            changed[name] = _SIZE_OF[name]
        elif name in ("image_size", "patch_size") and isinstance(value, list | tuple):
            changed[name] = [_SIZE_OF[name]] * len(value)
    if "qk_rope_head_dim" in changed and "head_dim" in changed:
        changed["head_dim"] = changed["qk_rope_head_dim"]
    kinds = getattr(default, "layer_types", None)
    if kinds:
        changed["layer_types"] = sorted(set(kinds), key=kinds.index)
        if len(changed["layer_types"]) == 1:
            changed["layer_types"] *= 2
        for name in ("num_hidden_layers", "n_layer"):
            if name in changed:
                changed[name] = len(changed["layer_types"])
    return cls(**changed)


def families():
    """Every model type that has a model of its own: {model type: the model's class name}."""
    tables = ("FOR_CAUSAL_LM", "FOR_SEQ_TO_SEQ_CAUSAL_LM", "FOR_IMAGE_TEXT_TO_TEXT")
    found = {}
    for table in (*(f"MODEL_{name}_MAPPING_NAMES" for name in tables), "MODEL_MAPPING_NAMES"):
        for family, name in getattr(modeling_auto, table).items():
            found.setdefault(family, name if isinstance(name, str) else name[0])
    return found


class NotSmall(Exception):
    """The family does not become small by these sizes."""


def build(family):
    """A small model with weights that make a wrong mask visible."""
    config = small_config(CONFIG_MAPPING[family])
    cls = getattr(transformers, families()[family])
    with torch.device("meta"):
        size = sum(p.numel() for p in cls(config).parameters())
    if size > _MOST_PARAMETERS:
        raise NotSmall(f"{size} parameters")
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                fan_in = parameter[0].numel()
                parameter.normal_(0, 1.5 * fan_in**-0.5)
    if getattr(model, "generation_config", None) is not None:
        tokens = {"pad": 0, "bos": 1, "decoder_start": 1, "eos": None}
        model.generation_config.update(**{f"{k}_token_id": v for k, v in tokens.items()})
    return model


def _pixels(config, batch, generator):
    vision = getattr(config, "vision_config", config)
    size = vision.image_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    shape = (batch, getattr(vision, "num_channels", 3), height, width)
    return {"pixel_values": torch.randn(shape, generator=generator)}


def inputs_of(model, batch=3):
    """What the model's forward takes, without masks."""
    names = inspect.signature(model.forward).parameters
    config = model.config
    generator = torch.Generator().manual_seed(1)
    main = model.main_input_name
    inputs = {}
    if "input_ids" in names:
        inputs["input_ids"] = torch.randint(4, 90, (batch, _LENGTH), generator=generator)
        if "pixel_values" in names and model.base_model_prefix in _TWO_TOWERS:
            inputs |= _pixels(config, batch, generator)
    elif main == "pixel_values":
        inputs |= _pixels(config, batch, generator)
    elif main == "input_values" and hasattr(config, "num_mel_bins"):
        shape = (batch, config.max_length, config.num_mel_bins)
        inputs["input_values"] = torch.randn(shape, generator=generator)
    elif main == "input_values":
        inputs["input_values"] = torch.randn(batch, 2400, generator=generator)
    elif hasattr(config, "input_feat_per_channel"):
        shape = (batch, 40, config.input_feat_per_channel)
        inputs["input_features"] = torch.randn(shape, generator=generator)
    else:
        shape = (batch, config.num_mel_bins, 2 * config.max_source_positions)
        inputs["input_features"] = torch.randn(shape, generator=generator)
    if "decoder_input_ids" in names:
        ids = torch.randint(4, 90, (batch, _LENGTH - 4), generator=generator)
        inputs["decoder_input_ids"] = ids
    return inputs


def padding(kind, batch=3, length=_LENGTH):
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1, {"left": slice(0, 5), "right": slice(8, None), "holes": slice(4, 7)}[kind]] = 0
    if kind == "right":
        mask[2, 3:] = 0
    return mask


def tensors_of(output):
    """The floating-point tensors of a model's output, but no caches."""
    if isinstance(output, torch.Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = [x for name, x in output.items() if "cache" not in name and "past" not in name]
    if isinstance(output, list | tuple):
        return [tensor for x in output for tensor in tensors_of(x)]
    return []


def forward(**more):
    return lambda model, inputs: tensors_of(model(**inputs, **more))


def with_padding(kind):
    def run(model, inputs):
        mask = padding(kind)
        found = tensors_of(model(**inputs, attention_mask=mask))
        # A query that is padding itself may see nothing: eager attention then takes the mean.
        same = lambda x: x.dim() > 1 and x.shape[:2] == mask.shape  # noqa: E731
        return [x[mask.bool()] if same(x) else x for x in found]

    return run


def generate(static):
    def run(model, inputs):
        options = {"cache_implementation": "static"} if static else {}
        mask = padding("left")
        out = model.generate(
            inputs["input_ids"],
            attention_mask=mask,
            max_new_tokens=4,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            disable_compile=True,
            **options,
        )
        return [torch.stack(out.logits)]

    return run


def packed(model, inputs):
    positions = torch.tensor([*range(5), *range(_LENGTH - 5)])[None]
    ids = inputs["input_ids"][:1]
    return tensors_of(model(input_ids=ids, position_ids=positions, use_cache=False))


def into_static_cache(model, inputs):
    cache = transformers.StaticCache(config=model.config, max_cache_len=24)
    return tensors_of(model(**inputs, past_key_values=cache))


def in_two_parts(model, inputs):
    ids = inputs["input_ids"]
    first = model(input_ids=ids[:, :7], use_cache=True)
    return tensors_of(model(input_ids=ids[:, 7:], past_key_values=first.past_key_values))


def gradients(checkpointing):
    def run(model, inputs):
        model.train()
        try:
            if checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            model.zero_grad()
            more = {"attention_mask": padding("left")} if "input_ids" in inputs else {}
            with torch.enable_grad():
                found = tensors_of(model(**inputs, **more))[0]
                if found.shape[:2] == (3, _LENGTH) and more:
                    found = found[more["attention_mask"].bool()]
                # Some models give unit vectors, whose squares have no gradient.
                (found * torch.randn(found.shape)).sum().backward()
            return [p.grad for p in model.parameters() if p.grad is not None]
        finally:
            if checkpointing:
                model.gradient_checkpointing_disable()
            model.eval()

    return run


def checks_of(model):
    """{name: function(model, inputs) that returns tensors} of what this model can be asked."""
    names = inspect.signature(model.forward).parameters
    checks = {"plain": forward()}
    text = "input_ids" in names
    if text and "attention_mask" in names:
        checks |= {kind: with_padding(kind) for kind in ("left", "right", "holes")}
    if text and model.can_generate():
        checks |= {"generate": generate(False), "static": generate(True)}
    if text and not model.config.is_encoder_decoder and model.can_generate():
        checks |= {"packed": packed, "static cache": into_static_cache, "parts": in_two_parts}
    return checks | {"gradients": gradients(False), "checkpointing": gradients(True)}


def _run(model, check, inputs):
    torch.manual_seed(3)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return [x.detach().clone() for x in check(model, inputs)]


class Calls:
    """Counts the calls of ingot's attention function while it is entered."""

    def __enter__(self):
        self.count = 0

        def counted(*args, **kwargs):
            self.count += 1
            return ingot.transformers.attention_forward(*args, **kwargs)

        transformers.AttentionInterface.register("ingot", counted)
        return self

    def __exit__(self, *_):
        transformers.AttentionInterface.register("ingot", ingot.transformers.attention_forward)


def difference(got, want):
    """The largest difference, in units of the largest number."""
    if [x.shape for x in got] != [x.shape for x in want]:
        return float("inf")
    pairs = [(x, y) for x, y in zip(got, want, strict=True) if x.numel()]
    scale = max(y.abs().max().item() for _, y in pairs)
    return max((x - y).abs().max().item() for x, y in pairs) / (scale or 1.0)


def _as_near(model, check, got, want):
    """Whether `got` is about as near to float64 as eager attention in float32, in a model that
    amplifies what is rounded; or agrees with PyTorch's sdpa: of queries that see nothing, which
    some models pool, eager attention takes the mean."""
    model.set_attn_implementation("eager")
    inputs = inputs_of(model)
    wide = {k: x.double() if x.is_floating_point() else x for k, x in inputs.items()}
    exact = [x.float() for x in _run(model.double(), check, wide)]
    model.float()
    if difference(got, exact) < 16 * difference(want, exact) < 1e-2:
        return True
    if not type(model)._supports_sdpa:
        return False
    model.set_attn_implementation("sdpa")
    return difference(got, _run(model, check, inputs)) < 1e-5


def compare(model, check):
    """("ok", difference), ("unsupported", reason), ("wrong", difference), ("eager", its error) if
    the model cannot be asked so, and ("own code", "") if it has told that it does not use ingot."""
    model.set_attn_implementation("eager")
    try:
        inputs = inputs_of(model)
        want = _run(model, check, inputs)
        if not want or not all(x.isfinite().all() for x in want):
            return "eager", "nothing to compare"
        again = difference(_run(model, check, inputs), want)
    except Exception as error:
        return "eager", f"{type(error).__name__}: {error}"[:200]
    if again > 1e-6:
        return "eager", "differs from itself"
    with Calls() as calls:
        try:
            model.set_attn_implementation("ingot")
            got = _run(model, check, inputs)
        except ingot.Unsupported as reason:
            return "unsupported", str(reason)
        except Exception as error:
            return "wrong", f"{type(error).__name__}: {error}"[:300]
    far = difference(got, want)
    if not far < 1e-5 and not _as_near(model, check, got, want):
        return "wrong", far
    return ("ok", far) if calls.count else ("own code", "")
