"""The model of `ssa train` in PyTorch for a GPU, as fast as PyTorch allows.

The same network as torch_ssa.py, whose attention goes document by document: here every row is one
document and rows are computed together. Matrices are cast to the type of what they are multiplied
with, so the weights may be f32 (masters, with f32 gradients) or bf16. Layers are compiled one by
one and share their code; the head and the loss never hold all logits.
"""

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse_gpu import select_op, sparse_attention
from torch_ssa import IGNORE_INDEX, ModelConfig, Stream

HAS_LIGER = importlib.util.find_spec("liger_kernel") is not None

PRESETS = {
    "ssa-1b": ModelConfig(128_256, 2048, 8192, 16, 32, 2, 64, 16, 16),
    "ssa-300m": ModelConfig(128_256, 1024, 4096, 16, 16, 1, 64, 16, 16),
    # To try the script without a GPU.
    "tiny": ModelConfig(300, 64, 96, 2, 4, 2, 16, 8, 2),
}


def share_key_values() -> bool:
    """Whether the attention backends that are allowed take fewer key/value heads than query
    heads."""
    if not torch.cuda.is_available():
        return True
    q = torch.zeros(1, 4, 128, 64, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    k = torch.zeros(1, 2, 128, 64, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    try:
        F.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True).sum().backward()
    except RuntimeError:
        return False
    return True


class Linear(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class RmsNorm(nn.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.normalized_shape, self.weight.float(), self.eps).to(
            x.dtype
        )


class Attention(nn.Module):
    """Full and sparse attention from the same q, k and v, gated per head."""

    def __init__(self, config: ModelConfig, shared: bool) -> None:
        super().__init__()
        self.config = config
        self.shared = shared
        hidden, width = config.hidden_size, config.num_attention_heads * config.head_dim
        self.q_proj = Linear(hidden, width)
        self.k_proj = Linear(hidden, config.num_key_value_heads * config.head_dim)
        self.v_proj = Linear(hidden, config.num_key_value_heads * config.head_dim)
        self.o_proj = Linear(width, hidden)
        self.g_proj = Linear(hidden, 3 * config.num_attention_heads)

    def full(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self.shared:
            group = q.shape[2] // k.shape[2]
            k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=self.shared
        ).transpose(1, 2)

    def sparse(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        indices = select_op(
            q.detach(), k.detach(), self.config.block_size, self.config.block_counts
        )
        return sparse_attention(q, k, v, indices, self.config.block_size)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], streams: tuple[Stream, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """The output of the first stream and the sum of SmoothL1 between the two, if there are
        two."""
        q, k, v = (
            proj(x).unflatten(-1, (-1, self.config.head_dim))
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        gate = F.linear(x, self.g_proj.weight[1::3].to(x.dtype)).sigmoid().unsqueeze(-1)
        q, k = rotate(q, rotary), rotate(k, rotary)
        outputs = [
            (self.full if stream == "full" else self.sparse)(q, k, v) * gate for stream in streams
        ]
        alignment = None
        if len(outputs) == 2:
            alignment = F.smooth_l1_loss(outputs[0].float(), outputs[1].float(), reduction="sum")
        return self.o_proj(outputs[0].flatten(2)), alignment


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate-half RoPE; the first half of the sines is negated."""
    cos, sin = rotary
    return (x * cos + x.roll(x.shape[-1] // 2, -1) * sin).to(x.dtype)


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, shared: bool) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, shared)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], streams: tuple[Stream, ...]
    ) -> tuple[Tensor, Tensor | None]:
        attended, alignment = self.self_attn(self.input_layernorm(x), rotary, streams)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), alignment


class ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of a linear head. Gradients are computed along, chunk by chunk, so that
    only the logits of one chunk exist: what Liger's kernel does too, which is used instead where it
    is installed."""

    CHUNK = 2048

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        count = (labels != IGNORE_INDEX).sum()
        dx, dweight = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)
        loss = torch.zeros((), dtype=torch.float32, device=x.device)
        parts = (tensor.split(ChunkedCrossEntropy.CHUNK) for tensor in (x, labels, dx))
        for rows, targets, drows in zip(*parts, strict=True):
            part, dlogits = loss_of_logits(F.linear(rows, weight), targets, count)
            loss += part
            torch.mm(dlogits, weight, out=drows)
            dweight += dlogits.T @ rows
        ctx.save_for_backward(dx, dweight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx, dloss: Tensor) -> tuple[Tensor, Tensor, None]:
        dx, dweight = ctx.saved_tensors
        return dx * dloss, dweight * dloss, None


def loss_of_logits_eager(logits: Tensor, labels: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The share of the mean and its gradient."""
    lse = logits.float().logsumexp(-1, keepdim=True)
    counted = (labels != IGNORE_INDEX)[:, None]
    targets = labels.clamp(min=0)[:, None]
    loss = ((lse - logits.gather(-1, targets).float()) * counted).sum() / count
    one_hot = targets == torch.arange(logits.shape[-1], device=logits.device)
    gradient = ((logits.float() - lse).exp() - one_hot.float()) * counted / count
    return loss, gradient.to(logits.dtype)


loss_of_logits = (
    torch.compile(loss_of_logits_eager) if torch.cuda.is_available() else loss_of_logits_eager
)


class SsaModel(nn.Module):
    """The causal language model with tied embeddings; activations in `dtype`."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = config
        self.dtype = dtype
        shared = share_key_values()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, shared) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=config.initializer_range)

    def rotary(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Factors [T, 1, D]."""
        device, head_dim = self.embed_tokens.weight.device, self.config.head_dim
        half = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim
        angles = torch.outer(
            torch.arange(tokens, dtype=torch.float64, device=device), self.config.rope_theta**-half
        )
        cos, sin = angles.cos().float(), angles.sin().float()
        return torch.cat([cos, cos], -1).unsqueeze(1), torch.cat([-sin, sin], -1).unsqueeze(1)

    def forward(
        self,
        ids: Tensor,
        labels: Tensor,
        rotary: tuple[Tensor, Tensor],
        streams: tuple[Stream, ...],
    ) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and mean alignment loss of `ids` [B, T]."""
        x = F.embedding(ids, self.embed_tokens.weight).to(self.dtype)
        sums = []
        for layer in self.layers:
            x, alignment = layer(x, rotary, streams)
            if alignment is not None:
                sums.append(alignment)
        x, head = self.norm(x).flatten(0, 1), self.embed_tokens.weight.to(self.dtype)
        if HAS_LIGER and x.is_cuda:
            from liger_kernel.ops import LigerFusedLinearCrossEntropyFunction

            loss = LigerFusedLinearCrossEntropyFunction.apply(x, head, labels.flatten())[0]
        else:
            loss = ChunkedCrossEntropy.apply(x, head, labels.flatten())
        if not sums:
            return loss, torch.zeros((), device=x.device)
        width = self.config.num_attention_heads * self.config.head_dim
        mean = torch.stack(sums).sum() / (ids.numel() * width * len(sums))
        # Both directions: twice the value, the gradient of one term without stop-gradients.
        return loss, mean + mean.detach()
