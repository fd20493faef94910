"""Times transformers' eager f32 on the CPU: decoding and prefill of a model with the sizes of
SmolLM2-135M and random weights. Prints the JSON lines of crates/ssa-infer/examples/decode_cpu.rs.

    python benchmarks/peers/decode_cpu.py [CONTEXT ..]
"""

import json
import statistics
import sys
import time

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

STEPS = 20
PROMPT = 2048


def model(positions):
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, head_dim=64, rms_norm_eps=1e-5,
        max_position_embeddings=positions, tie_word_embeddings=True,
        attn_implementation="eager",
    )
    torch.manual_seed(1)
    return LlamaForCausalLM(config).float().eval()


def random_cache(config, tokens):
    """A cache as if so many tokens had been computed."""
    cache = DynamicCache()
    shape = (1, config.num_key_value_heads, tokens, config.head_dim)
    for layer in range(config.num_hidden_layers):
        cache.update(torch.randn(shape), torch.randn(shape), layer)
    return cache


@torch.inference_mode()
def main():
    contexts = [int(argument) for argument in sys.argv[1:]] or [1024, 8192]
    net = model(max(contexts + [PROMPT]) + STEPS)
    start = time.perf_counter()
    net(torch.arange(PROMPT)[None], logits_to_keep=1)
    print(json.dumps({"case": "prefill", "tokens": PROMPT,
                      "seconds": time.perf_counter() - start}), flush=True)
    for context in contexts:
        cache, times = random_cache(net.config, context), []
        for _ in range(STEPS):
            start = time.perf_counter()
            net(torch.tensor([[17]]), past_key_values=cache, use_cache=True)
            times.append(1e3 * (time.perf_counter() - start))
        print(json.dumps({
            "case": "decode", "context": context, "attention": "full",
            "fastest_ms": min(times), "median_ms": statistics.median(times),
            "tokens_per_s": 1e3 / min(times),
        }), flush=True)


if __name__ == "__main__":
    main()
