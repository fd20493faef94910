"""SSA models (Sparse Sparse Attention, arXiv 2511.20102) for transformers, in pure PyTorch.

A Llama decoder with a gate per attention head. `config.attention_mode` selects full or block-sparse
attention; `model.set_attention(...)` changes mode and budget of a loaded model. Full attention
calls the attention back-ends of transformers, so serving engines that use those can run it. Sparse
attention is a masked dense computation: correct on any device, with no saving in time.

Works with transformers 4.5x and 5.x. The model has no buffers: cosines, sines and masks are
computed from the configuration and the attention mask, and block means from the cached keys.
Cropping, reordering or offloading a cache therefore cannot make them stale.
"""

import math

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_ssa import SSAConfig

# Queries of sparse attention that are scored at a time: bounds the memory of a long prompt.
QUERY_CHUNK = 512


def at_least_f32(x):
    """`x` in the type that norms, scores and block means are computed in: f32, or f64 for f64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class SSARMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        y = at_least_f32(x)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


class SSAMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


def rope_frequencies(config, device):
    """Angular frequency of each pair of dimensions, `[D / 2]`, f32."""
    rope = config.rope_parameters
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.int64, device=device).float()
    frequency = 1.0 / (rope["rope_theta"] ** (exponent / config.head_dim))
    if rope["rope_type"] == "linear":
        return frequency / rope["factor"]
    if rope["rope_type"] == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = rope["original_max_position_embeddings"] * frequency / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
        return frequency * (kept + (1.0 - kept) / rope["factor"])
    if rope["rope_type"] == "yarn":
        pairs = torch.arange(config.head_dim // 2, dtype=torch.float32, device=device)
        low, high = yarn_range(rope, config.head_dim)
        divided = ((pairs - low) / (high - low)).clamp(0.0, 1.0)
        return frequency * (1.0 - divided) + frequency / rope["factor"] * divided
    return frequency


def yarn_range(rope, head_dim):
    """The pairs of dimensions between which frequencies go from kept to divided."""

    def pair(turns):
        length = rope["original_max_position_embeddings"] / (2 * math.pi * turns)
        return head_dim * math.log(length) / (2 * math.log(rope["rope_theta"]))

    low, high = pair(rope["beta_fast"]), pair(rope["beta_slow"])
    if rope["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    return low, high + 0.001 if low == high else high


def apply_rope(x, positions, config):
    """Rotates `x` `[B, H, T, D]` by `positions` `[B, T]`, first half against second half."""
    angle = positions[:, None, :, None].float() * rope_frequencies(config, x.device)
    factor = config.rope_parameters.get("attention_factor", 1.0)
    cos, sin = (factor * angle.cos()).to(x.dtype), (factor * angle.sin()).to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Sequence:
    """Where queries and keys of one call are in their sequences.

    Attributes:
        queries: positions `[B, T]` of the queries; padding has 0.
        keys: positions `[B, S]` of the keys in the cache; padding and unused slots have -1.
        rope: positions `[B, T]` that RoPE rotates by: `position_ids`, else those of the queries.
    """

    def __init__(self, attention_mask, position_ids, past, batch, tokens, device):
        total = past + tokens
        if attention_mask is None:
            self.keys = torch.arange(total, device=device).expand(batch, total)
        else:
            valid = attention_mask[:, :total].to(device).long()
            self.keys = torch.where(valid > 0, valid.cumsum(-1) - 1, -1)
        self.queries = self.keys[:, past:].clamp(min=0)
        self.rope = self.queries
        if position_ids is not None:
            self.rope = position_ids.to(device).expand(batch, -1)

    def padded(self, length):
        """Key positions of a cache with `length` slots."""
        return nn.functional.pad(self.keys, (0, length - self.keys.shape[1]), value=-1)

    def visible(self, length):
        """Which keys a query sees under full attention, `[B, 1, T, S]`."""
        keys = self.padded(length)[:, None, None, :]
        queries = self.queries[:, None, :, None]
        return see_something((keys >= 0) & (keys <= queries))


def see_something(mask):
    """A query of padding sees nothing; let it see everything, so that no softmax is NaN."""
    return mask | ~mask.any(-1, keepdim=True)


def eager_attention(module, q, k, v, attention_mask, scaling, dropout=0.0, **kwargs):
    """softmax(scaling * q k^T) v under a boolean mask; returns `[B, T, HQ, D]`."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = at_least_f32(q @ k.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    weights = scores.softmax(-1).to(q.dtype)
    return (weights @ v).transpose(1, 2), weights


def block_means(x, positions, block_size):
    """Mean of each block of `block_size` positions: `[B, H, S, D]` -> `[B, H, C, D]`."""
    x = at_least_f32(x)
    blocks = int(positions.max()) // block_size + 1
    member = nn.functional.one_hot(positions.clamp(min=0) // block_size, blocks)
    member = (member * (positions >= 0)[..., None]).to(x.dtype)
    return torch.einsum("bsc,bhsd->bhcd", member, x) / block_size


def select_blocks(q, means, queries, config):
    """The blocks each token attends to, `[B, H, T, C]` boolean; no gradient."""
    batch, q_heads, tokens, dim = q.shape
    kv_heads, blocks = means.shape[1], means.shape[2]
    size, counts = config.block_size, config.block_counts
    grouped = at_least_f32(q).view(batch, kv_heads, -1, tokens, dim)
    scores = torch.einsum("bhgtd,bhcd->bhgtc", grouped, means) * dim**-0.5
    index = torch.arange(blocks, device=q.device)
    complete = (index < (queries[..., None] + 1) // size)[:, None, None]
    own = (queries // size)[:, None, :, None]
    earlier = index < own
    lse = scores.masked_fill(~complete, float("-inf")).logsumexp(-1, keepdim=True)
    lse = torch.where(lse.isfinite(), lse, torch.zeros_like(lse))
    importance = torch.where(earlier[:, :, None], (scores - lse).exp(), 0.0).sum(2)
    importance = torch.where(earlier, importance, -1.0)
    importance = torch.where(index == own, float("inf"), importance)
    if config.selection == "reference" and counts > size // 2:
        importance = _released_candidates(importance, own, size)
    # A stable sort resolves ties to the lower block.
    order = importance.sort(dim=-1, descending=True, stable=True).indices[..., :counts]
    chosen = torch.zeros_like(importance, dtype=torch.bool).scatter_(-1, order, True)
    return chosen & (importance >= 0)


def _released_candidates(importance, own, size):
    """Drops the blocks that the released kernel loses.

    It walks the blocks in chunks of `size` and keeps half a list from either side of each merge:
    of the blocks before the chunk that holds a token's own block, the best half of `size`; of that
    chunk, as many, the own block among them. A single chunk is kept whole.
    """
    blocks = importance.shape[-1]
    index = torch.arange(blocks, device=importance.device)
    first = own // size * size
    last = index >= first
    kept = torch.zeros_like(importance, dtype=torch.bool)
    for side in (last, ~last):
        candidates = torch.where(side, importance, -1.0)
        order = candidates.sort(dim=-1, descending=True, stable=True).indices[..., : size // 2]
        kept |= torch.zeros_like(kept).scatter_(-1, order, True) & side
    return torch.where(kept | (first == 0), importance, -1.0)


def sparse_attention(q, k, v, sequence, config):
    """Attention over the tokens of the selected blocks, `[B, T, HQ, D]`."""
    keys = sequence.padded(k.shape[2])
    means = block_means(k, keys, config.block_size)
    block_of_key = keys.clamp(min=0) // config.block_size
    groups = q.shape[1] // k.shape[1]
    out = []
    for start in range(0, q.shape[2], QUERY_CHUNK):
        queries = sequence.queries[:, start : start + QUERY_CHUNK]
        part = q[:, :, start : start + QUERY_CHUNK]
        chosen = select_blocks(part, means, queries, config)
        index = block_of_key[:, None, None, :].expand(*chosen.shape[:3], -1)
        causal = (keys[:, None, :] >= 0) & (keys[:, None, :] <= queries[..., None])
        mask = see_something(chosen.gather(-1, index) & causal[:, None])
        mask = mask.repeat_interleave(groups, 1)
        out.append(eager_attention(None, part, k, v, mask, q.shape[-1] ** -0.5)[0])
    return torch.cat(out, 1)


def compression_attention(q, k, v, sequence, config):
    """Attention over the means of complete blocks, zero where there is none, `[B, T, HQ, D]`."""
    keys = sequence.padded(k.shape[2])
    means_k = block_means(k, keys, config.block_size).to(q.dtype)
    means_v = block_means(v, keys, config.block_size).to(q.dtype)
    index = torch.arange(means_k.shape[2], device=q.device)
    complete = (index < (sequence.queries[..., None] + 1) // config.block_size)[:, None]
    mask = see_something(complete)
    out, _ = eager_attention(None, q, means_k, means_v, mask, q.shape[-1] ** -0.5)
    return out * complete.any(-1).transpose(1, 2)[..., None]


def window_attention(q, k, v, sequence, config):
    """Attention over the last `window_size` tokens, `[B, T, HQ, D]`."""
    keys = sequence.padded(k.shape[2])[:, None, None, :]
    queries = sequence.queries[:, None, :, None]
    mask = (keys >= 0) & (keys <= queries) & (keys > queries - config.window_size)
    return eager_attention(None, q, k, v, see_something(mask), q.shape[-1] ** -0.5)[0]


class SSAAttention(nn.Module):
    """Grouped-query attention with a gate per head; full, sparse or the three of nsa."""

    def __init__(self, config, layer_idx):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = 0.0
        self.is_causal = True
        hidden, heads = config.hidden_size, config.num_attention_heads
        bias, keys = config.qkv_bias, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(hidden, heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(hidden, keys, bias=bias)
        self.v_proj = nn.Linear(hidden, keys, bias=bias)
        if config.qk_norm:
            self.q_norm = SSARMSNorm(self.head_dim, config.rms_norm_eps)
            self.k_norm = SSARMSNorm(self.head_dim, config.rms_norm_eps)
        self.o_proj = nn.Linear(heads * self.head_dim, hidden, bias=False)
        # Rows 3h, 3h + 1 and 3h + 2 gate compression, selection (and full) and window of head h.
        self.g_proj = nn.Linear(hidden, 3 * heads, bias=False)

    def forward(self, x, sequence, attention_mask, past_key_values=None, **kwargs):
        shape = (*x.shape[:-1], -1, self.head_dim)
        q, k = self.q_proj(x).view(shape), self.k_proj(x).view(shape)
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q = apply_rope(q.transpose(1, 2), sequence.rope, self.config)
        k = apply_rope(k.transpose(1, 2), sequence.rope, self.config)
        v = self.v_proj(x).view(shape).transpose(1, 2)
        if past_key_values is not None:
            # transformers 4 asks where the tokens go; 5 knows, and ignores the answer.
            start = sequence.keys.shape[1] - x.shape[1]
            slots = torch.arange(start, sequence.keys.shape[1], device=x.device)
            k, v = past_key_values.update(k, v, self.layer_idx, {"cache_position": slots})
        gates = self.g_proj(x).sigmoid().view(*x.shape[:-1], -1, 3, 1)

        if self.config.attention_mode == "full":
            implementation = attention_implementation(self.config)
            if attention_mask is None and implementation in ("eager", "sdpa"):
                attention_mask = sequence.visible(k.shape[2])
            attend = eager_attention
            if implementation != "eager":
                attend = ALL_ATTENTION_FUNCTIONS[implementation]
            out, _ = attend(
                self, q, k, v, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs
            )
            out = out * gates[..., 1, :]
        else:
            out = sparse_attention(q, k, v, sequence, self.config) * gates[..., 1, :]
            if self.config.attention_method == "nsa":
                compressed = compression_attention(q, k, v, sequence, self.config)
                windowed = window_attention(q, k, v, sequence, self.config)
                out = out + compressed * gates[..., 0, :] + windowed * gates[..., 2, :]
        return self.o_proj(out.reshape(*x.shape[:-1], -1))


def attention_implementation(config):
    """The back-end of full attention. "eager" and "sdpa" take a mask `[B, 1, T, S]`; FlashAttention
    takes the mask of padding; those of serving engines know their sequences themselves."""
    return getattr(config, "_attn_implementation", None) or "eager"


class SSADecoderLayer(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.self_attn = SSAAttention(config, layer_idx)
        self.mlp = SSAMLP(config)
        self.input_layernorm = SSARMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = SSARMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, **kwargs):
        x = x + self.self_attn(self.input_layernorm(x), **kwargs)
        return x + self.mlp(self.post_attention_layernorm(x))


class SSAPreTrainedModel(PreTrainedModel):
    config_class = SSAConfig
    base_model_prefix = "model"
    _no_split_modules = ["SSADecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @classmethod
    def _can_set_attn_implementation(cls):
        # transformers guesses this from the text of the file.
        return True

    def set_attention(self, mode=None, block_size=None, block_counts=None, selection=None):
        """Changes mode and budget of this model. Start a new cache afterwards: the keys and values
        of deeper layers depend on both."""
        changes = {
            "attention_mode": mode,
            "block_size": block_size,
            "block_counts": block_counts,
            "selection": selection,
        }
        changes = {key: value for key, value in changes.items() if value is not None}
        # Validates them together.
        SSAConfig(**{**self.config.to_dict(), **changes})
        for key, value in changes.items():
            setattr(self.config, key, value)
        return self


class SSAModel(SSAPreTrainedModel):
    """The decoder without the head."""

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            SSADecoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.norm = SSARMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        output_hidden_states=None,
        return_dict=None,
        **kwargs,
    ):
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass either input_ids or inputs_embeds")
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        if past_key_values is not None and not isinstance(past_key_values, Cache):
            raise ValueError("past_key_values must be a Cache of transformers")
        past = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        implementation = attention_implementation(self.config)
        is_flash = implementation.startswith("flash")
        if self.config.attention_mode != "full":
            if implementation not in ("eager", "sdpa") and not is_flash:
                raise ValueError(
                    f"sparse attention does not run with {implementation!r}: set attention_mode to "
                    "'full' in config.json"
                )
        padding, mask = attention_mask, None
        if attention_mask is not None and attention_mask.ndim == 4:
            padding, mask = None, attention_mask
            if self.config.attention_mode != "full":
                raise ValueError("sparse attention takes a mask [batch, tokens], not 4 axes")
        elif is_flash:
            mask = None if padding is None or bool(padding.all()) else padding
        sequence = Sequence(padding, position_ids, past, x.shape[0], x.shape[1], x.device)
        kwargs.pop("cache_position", None)
        states = [x] if output_hidden_states else None
        for layer in self.layers:
            x = layer(
                x,
                sequence=sequence,
                attention_mask=mask,
                past_key_values=past_key_values,
                **kwargs,
            )
            if output_hidden_states:
                states.append(x)
        x = self.norm(x)
        if output_hidden_states:
            states[-1] = x
        outputs = BaseModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=tuple(states) if output_hidden_states else None,
        )
        return outputs.to_tuple() if return_dict is False else outputs


class SSAForCausalLM(SSAPreTrainedModel, GenerationMixin):
    """The decoder with its head."""

    # transformers 5 reads target -> source; 4.x iterates over the keys.
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = SSAModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def prepare_inputs_for_generation(
        self, input_ids, past_key_values=None, attention_mask=None, inputs_embeds=None, **kwargs
    ):
        past = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        # transformers 5 says how many tokens are new and passes no mask where nothing is padded.
        new = kwargs.get("next_sequence_length")
        if new is None:
            total = input_ids.shape[1] if attention_mask is None else attention_mask.shape[1]
            new = total - past
        inputs = {
            "past_key_values": past_key_values,
            "attention_mask": attention_mask,
            "use_cache": kwargs.get("use_cache"),
        }
        if inputs_embeds is not None and past == 0:
            inputs["inputs_embeds"] = inputs_embeds
        else:
            inputs["input_ids"] = input_ids[:, -new:].contiguous()
        if kwargs.get("logits_to_keep") is not None:
            inputs["logits_to_keep"] = kwargs["logits_to_keep"]
        return inputs

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        output_hidden_states=None,
        logits_to_keep=0,
        return_dict=None,
        **kwargs,
    ):
        output_hidden_states = bool(
            self.config.output_hidden_states
            if output_hidden_states is None
            else output_hidden_states
        )
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            **kwargs,
        )
        x = outputs.last_hidden_state
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(x[:, keep])
        loss = None
        if labels is not None:
            predictions = at_least_f32(logits[:, :-1]).flatten(0, 1)
            loss = nn.functional.cross_entropy(
                predictions, labels[:, 1:].flatten(), ignore_index=-100
            )
        result = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
        )
        return result.to_tuple() if return_dict is False else result


SSAModel.register_for_auto_class("AutoModel")
SSAForCausalLM.register_for_auto_class("AutoModelForCausalLM")
