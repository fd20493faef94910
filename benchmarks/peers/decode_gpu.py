"""Decoding and prefill of a dense Llama of the shape of SSA-1B in PyTorch, on a GPU.

A decoding step is one token of each sequence over a static cache, all of it one CUDA graph that
also chooses the next token. Attention is the faster of PyTorch's backends. A prefill is one prompt
up to the logits of its first token, compiled layer by layer with --compile. Prints one JSON object
a line.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 16, 2048, 32, 2, 64
INTERMEDIATE, VOCABULARY = 8192, 128_256
WIDTHS = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM)
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
SAMPLES = 20


def weight(outputs: int, inputs: int) -> Tensor:
    return torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16) * 0.02


class Layer:
    def __init__(self) -> None:
        self.qkv = weight(sum(WIDTHS), HIDDEN)
        self.gates = weight(HEADS, HIDDEN)
        self.output = weight(HIDDEN, HEADS * HEAD_DIM)
        self.gate_up = weight(2 * INTERMEDIATE, HIDDEN)
        self.down = weight(HIDDEN, INTERMEDIATE)
        self.norm = torch.ones(HIDDEN, device="cuda", dtype=torch.bfloat16)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


def angles_of(tokens: int) -> tuple[Tensor, Tensor]:
    cos, sin = torch.randn(2, tokens, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
    return cos, sin


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def run_layer(x: Tensor, layer: Layer, angles: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
    batch, tokens, _ = x.shape
    normed = F.rms_norm(x, (HIDDEN,), layer.norm, 1e-5)
    q, k, v = F.linear(normed, layer.qkv).split(WIDTHS, -1)
    q, k, v = (y.view(batch, tokens, -1, HEAD_DIM).transpose(1, 2) for y in (q, k, v))
    gates = F.linear(normed, layer.gates).sigmoid().unsqueeze(-1)
    out = attend(rope(q, *angles), rope(k, *angles), v).transpose(1, 2) * gates
    x = x + F.linear(out.reshape(batch, tokens, -1), layer.output)
    normed = F.rms_norm(x, (HIDDEN,), layer.norm, 1e-5)
    gate, up = F.linear(normed, layer.gate_up).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, layer.down)


class Model:
    def __init__(self) -> None:
        self.embedding = weight(VOCABULARY, HIDDEN)
        self.layers = [Layer() for _ in range(LAYERS)]

    def logits(
        self,
        ids: Tensor,
        angles: tuple[Tensor, Tensor],
        attends: list[Attend],
        run: Callable[..., Tensor],
    ) -> Tensor:
        x = F.embedding(ids, self.embedding)
        for layer, attend in zip(self.layers, attends, strict=True):
            x = run(x, layer, angles, attend)
        return F.linear(x[:, -1], self.embedding)


def cached_attention(batch: int, context: int) -> Attend:
    """Attention of one token over a static cache, whose last row it writes."""
    shape = (batch, KV_HEADS, context, HEAD_DIM)
    keys, values = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys[:, :, -1:] = k
        values[:, :, -1:] = v
        return F.scaled_dot_product_attention(q, keys, values, enable_gqa=True)

    return attend


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def without_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q


def step_ms(model: Model, batch: int, attends: list[Attend]) -> float:
    """Median milliseconds of a step that is replayed as a CUDA graph."""
    ids = torch.zeros(batch, 1, dtype=torch.long, device="cuda")
    angles = angles_of(1)

    def step() -> None:
        logits = model.logits(ids, angles, attends, run_layer)
        ids.copy_(logits.argmax(-1, keepdim=True))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    times = []
    for _ in range(3 + SAMPLES):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop))
    return sorted(times[3:])[SAMPLES // 2]


def prefill_ms(model: Model, tokens: int, compiled: bool) -> float:
    """Milliseconds of the best of a few runs, with the time of the host."""
    ids = torch.randint(VOCABULARY, (1, tokens), device="cuda")
    run = torch.compile(run_layer) if compiled else run_layer
    angles = angles_of(tokens)
    best = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        model.logits(ids, angles, [causal_attention] * LAYERS, run).float().cpu()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=numbers, default=[1], metavar="N,...")
    parser.add_argument("--context", type=numbers, default=[8192], metavar="N,...")
    parser.add_argument("--prefill", type=numbers, default=[], metavar="N,...")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = Model()
    rows = [(batch, context) for batch in arguments.batch for context in arguments.context]
    with torch.no_grad():
        for name, backend in BACKENDS.items():
            with sdpa_kernel(backend):
                for tokens in arguments.prefill:
                    ms = prefill_ms(model, tokens, arguments.compile)
                    print(json.dumps({"prefill": tokens, "backend": name, "ms": round(ms, 3)}))
                for batch, context in rows:
                    attends = [cached_attention(batch, context) for _ in range(LAYERS)]
                    ms = step_ms(model, batch, attends)
                    without = step_ms(model, batch, [without_attention] * LAYERS)
                    row = {"batch": batch, "context": context, "backend": name}
                    row |= {"ms": round(ms, 3), "without_attention_ms": round(without, 3)}
                    print(json.dumps(row), flush=True)
                    del attends
                    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
