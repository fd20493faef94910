"""Configuration of SSA models (Sparse Sparse Attention, arXiv 2511.20102) for transformers."""

import math

from transformers import PretrainedConfig

ATTENTION_METHODS = ("full", "moba", "nsa", "ssa")
ATTENTION_MODES = ("full", "sparse")
SELECTION_RULES = ("exact", "reference")


class SSAConfig(PretrainedConfig):
    """A Llama configuration with the settings of block-sparse attention.

    The defaults are those of `ssa` for keys that a `config.json` leaves out: transformers does not
    write all keys.

    Args beyond Llama's:
        attention_method: how the model was trained: "full", "moba", "nsa" or "ssa".
        attention_mode: the attention it runs: "full" or "sparse". By default the one it was trained
            for: "full" for "full", "sparse" for "moba" and "nsa", "full" for "ssa", whose models
            run either way. Change it at any time with `model.set_attention(...)`.
        block_size, block_counts: budget of sparse attention: tokens per block, blocks per token.
        selection: "exact", or "reference" for the selection of the code released with the paper.
        window_size: tokens of the sliding window of "nsa".
        qkv_bias: whether q, k and v have biases, as in models converted from Qwen2.
        qk_norm: whether the heads of q and k are normalized before RoPE, as in Qwen3.
    """

    model_type = "llama-nsa"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=None,
        head_dim=None,
        max_position_embeddings=2048,
        initializer_range=0.02,
        rms_norm_eps=1e-6,
        rope_theta=None,
        rope_scaling=None,
        rope_parameters=None,
        attention_method="ssa",
        attention_mode=None,
        block_size=16,
        block_counts=16,
        selection="exact",
        window_size=0,
        qkv_bias=False,
        qk_norm=False,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=False,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        if num_key_value_heads is None:
            num_key_value_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = hidden_size // num_attention_heads if head_dim is None else head_dim
        self.hidden_act = kwargs.pop("hidden_act", "silu")
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.rms_norm_eps = rms_norm_eps
        self.rope_parameters = _rope_parameters(rope_theta, rope_scaling, rope_parameters)
        self.use_cache = use_cache
        if attention_mode is None:
            attention_mode = "sparse" if attention_method in ("moba", "nsa") else "full"
        self.attention_method = _one_of("attention_method", attention_method, ATTENTION_METHODS)
        self.attention_mode = _one_of("attention_mode", attention_mode, ATTENTION_MODES)
        if attention_method == "nsa" and attention_mode == "full":
            raise ValueError("attention_method 'nsa' has no full attention; use 'sparse'")
        self.block_size = block_size
        self.block_counts = block_counts
        self.selection = _one_of("selection", selection, SELECTION_RULES)
        self.window_size = window_size
        self.qkv_bias = qkv_bias
        self.qk_norm = qk_norm
        super().__init__(
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            tie_word_embeddings=tie_word_embeddings,
            **kwargs,
        )

    def to_dict(self):
        """The configuration with RoPE under the names of transformers 4 and 5 alike."""
        output = super().to_dict()
        rope = dict(output["rope_parameters"])
        output["rope_theta"] = rope.pop("rope_theta")
        output["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        return output


def _one_of(key, value, allowed):
    if value not in allowed:
        raise ValueError(f"{key} is {value!r}, expected one of {', '.join(allowed)}")
    return value


def _rope_parameters(theta, scaling, parameters):
    """Merges what transformers 4 and 5 write. Two values for one thing are an error."""
    merged = dict(scaling or {})
    if "type" in merged:
        merged.setdefault("rope_type", merged.pop("type"))
    for source in (parameters or {}, {} if theta is None else {"rope_theta": theta}):
        for key, value in source.items():
            if merged.get(key, value) != value:
                raise ValueError(f"RoPE's {key} has two values: {merged[key]} and {value}")
            merged[key] = value
    merged.setdefault("rope_type", "default")
    merged.setdefault("rope_theta", 10000.0)
    _one_of("rope_type", merged["rope_type"], ("default", "linear", "llama3", "yarn"))
    if merged["rope_type"] == "yarn":
        merged["attention_factor"] = _attention_factor(merged)
        merged["beta_fast"] = merged.get("beta_fast") or 32.0
        merged["beta_slow"] = merged.get("beta_slow") or 1.0
        merged.setdefault("truncate", True)
    return merged


def _attention_factor(yarn):
    def mscale(weight):
        return 1.0 if yarn["factor"] <= 1.0 else 0.1 * weight * math.log(yarn["factor"]) + 1.0

    if yarn.get("attention_factor") is not None:
        return yarn["attention_factor"]
    if yarn.get("mscale") and yarn.get("mscale_all_dim"):
        return mscale(yarn["mscale"]) / mscale(yarn["mscale_all_dim"])
    return mscale(1.0)


SSAConfig.register_for_auto_class()
