"""Sparse Sparse Attention in PyTorch for the CPU: the same computation as `ssa train`, as fast as
PyTorch allows.

Parameter names are those of the Hugging Face checkpoints. Tokens of a batch lie in one axis N, cut
into documents by their lengths: attention, block borders and positions restart at each document.

Chosen by the CPU time of one thread on the demo configuration (AVX-512 server core, torch 2.15,
shared machine; seconds a step, fastest of two runs of five steps; only the order is meant to be
relied on):

    sparse_gathered, compiled around attention      2.6
    sparse_gathered                                 2.7
    sparse_tiled                                    3.4
    sparse_masked                                   4.3

Compiling the whole step is not an option: document lengths differ in every batch.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from formulations import SparseAttention, full_attention, select_blocks, sparse_gathered

Method = Literal["full", "moba", "ssa"]
Stream = Literal["full", "sparse"]
IGNORE_INDEX = -100


@dataclass(frozen=True)
class ModelConfig:
    """The fields of `config.json` or of the TOML section [model] that define the network."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    block_size: int
    block_counts: int
    rope_theta: float = 500_000.0
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    sparse_attention: SparseAttention = field(default=sparse_gathered)
    compiled: bool = False
    """Whether everything but the attention goes through torch.compile."""

    @classmethod
    def from_dict(cls, values: dict[str, Any], **others: Any) -> Self:
        """Takes the known fields and leaves the rest."""
        names = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names}, **others)


class Documents:
    """Lengths of the documents of a batch, and each token's position in its own."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths
        self.positions = torch.cat([torch.arange(length) for length in lengths])


class Rotary(NamedTuple):
    """Rotate-half RoPE of a batch: factors [N, 1, D], the first half of the sines negated."""

    cos: Tensor
    sin: Tensor

    def apply(self, x: Tensor) -> Tensor:
        return x * self.cos + x.roll(x.shape[-1] // 2, -1) * self.sin


class Attention(nn.Module):
    """Full and sparse attention from the same q, k and v, gated per head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden, query_heads, head_dim = (
            config.hidden_size,
            config.num_attention_heads,
            config.head_dim,
        )
        self.q_proj = nn.Linear(hidden, query_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, config.num_key_value_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, config.num_key_value_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(query_heads * head_dim, hidden, bias=False)
        self.g_proj = nn.Linear(hidden, 3 * query_heads, bias=False)

    def project(self, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q [N, HQ, D], k and v [N, H, D], gate [N, HQ, 1]."""
        q, k, v = (
            proj(x).unflatten(-1, (-1, self.config.head_dim))
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        gate = F.linear(x, self.g_proj.weight[1::3]).sigmoid().unsqueeze(-1)
        return rotary.apply(q), rotary.apply(k), v, gate

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, documents: Documents, streams: tuple[Stream, ...]
    ) -> list[Tensor]:
        """The output [N, HQ, D] of each stream."""
        block_size, block_counts = self.config.block_size, self.config.block_counts
        q = q.unflatten(1, (self.config.num_key_value_heads, -1))
        pieces = (x.split(documents.lengths) for x in (q, k.unsqueeze(2), v.unsqueeze(2)))
        out: dict[Stream, list[Tensor]] = {stream: [] for stream in streams}
        for qd, kd, vd in zip(*pieces, strict=True):
            qd, kd, vd = (x.permute(1, 2, 0, 3) for x in (qd, kd, vd))
            if "full" in out:
                out["full"].append(full_attention(qd, kd, vd).permute(2, 0, 1, 3))
            if "sparse" in out:
                indices = select_blocks(qd, kd, block_size, block_counts)
                attended = self.config.sparse_attention(qd, kd, vd, indices, block_size)
                out["sparse"].append(attended.permute(2, 0, 1, 3))
        return [torch.cat(out[stream]).flatten(1, 2) for stream in streams]


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One Llama block. Head and tail, around the attention, have fixed shapes and can be
    compiled."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)
        self.head = (
            torch.compile(self.before_attention) if config.compiled else self.before_attention
        )
        self.tail = torch.compile(self.after_attention) if config.compiled else self.after_attention

    def before_attention(self, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.self_attn.project(self.input_layernorm(x), rotary)

    def after_attention(
        self, x: Tensor, gate: Tensor, chosen: Tensor, other: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The layer's output and the sum of SmoothL1 between the gated streams."""
        chosen = chosen * gate
        alignment = (
            None if other is None else F.smooth_l1_loss(chosen, other * gate, reduction="sum")
        )
        x = x + self.self_attn.o_proj(chosen.flatten(1))
        return x + self.mlp(self.post_attention_layernorm(x)), alignment

    def forward(
        self, x: Tensor, rotary: Rotary, documents: Documents, streams: tuple[Stream, ...]
    ) -> tuple[Tensor, Tensor | None]:
        q, k, v, gate = self.head(x, rotary)
        outputs = self.self_attn.attend(q, k, v, documents, streams)
        return self.tail(x, gate, outputs[0], outputs[1] if len(outputs) == 2 else None)


class Transformer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class Output(NamedTuple):
    logits: Tensor
    """[N, V]"""
    alignment_sum: Tensor
    """Both directions, summed over layers, tokens, heads and head_dim."""


class SsaModel(nn.Module):
    """The causal language model with tied embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Transformer(config)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=config.initializer_range)

    def rotary(self, documents: Documents) -> Rotary:
        half = torch.arange(0, self.config.head_dim, 2, dtype=torch.float64) / self.config.head_dim
        angles = torch.outer(documents.positions.double(), self.config.rope_theta**-half)
        cos, sin = angles.cos().float(), angles.sin().float()
        return Rotary(
            torch.cat([cos, cos], -1).unsqueeze(1), torch.cat([-sin, sin], -1).unsqueeze(1)
        )

    def forward(self, ids: Tensor, documents: Documents, streams: tuple[Stream, ...]) -> Output:
        """`ids` is [N]; the first of `streams` goes on, a second one is only aligned with it."""
        rotary = self.rotary(documents)
        x = self.model.embed_tokens(ids)
        alignment = torch.zeros(())
        for layer in self.model.layers:
            x, layer_alignment = layer(x, rotary, documents, streams)
            if layer_alignment is not None:
                alignment = alignment + layer_alignment
        logits = F.linear(self.model.norm(x), self.model.embed_tokens.weight)
        # SmoothL1(full, sg sparse) + SmoothL1(sparse, sg full) has the gradient of SmoothL1(full,
        # sparse) without stop-gradients and twice its value.
        return Output(logits, alignment + alignment.detach())


def streams_of(method: Method, stream: Stream) -> tuple[Stream, ...]:
    """The streams each layer computes, the one that goes on first."""
    if method == "full":
        return ("full",)
    if method == "moba":
        return ("sparse",)
    return ("full", "sparse") if stream == "full" else ("sparse", "full")


def losses(
    output: Output, labels: Tensor, config: ModelConfig, target_tokens: int, valid_tokens: int
) -> tuple[Tensor, Tensor]:
    """This batch's share of the cross-entropy and alignment means of a step of that many tokens."""
    cross_entropy = F.cross_entropy(
        output.logits, labels, ignore_index=IGNORE_INDEX, reduction="sum"
    )
    width = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return cross_entropy / target_tokens, output.alignment_sum / (valid_tokens * width)
