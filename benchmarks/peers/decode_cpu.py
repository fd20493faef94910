"""Times others on the CPU: prefill and decoding of a model with the sizes of SmolLM2-135M and
random weights. Prints the JSON lines of crates/ssa-infer/examples/decode_cpu.rs.

    python benchmarks/peers/decode_cpu.py transformers [CONTEXT ..]
    python benchmarks/peers/decode_cpu.py llama.cpp [CONTEXT ..]

transformers runs in float32, prefill with its faster attention and decoding with eager attention;
llama.cpp, through llama-cpp-python and gguf, on a GGUF file in float16. Run them and the example by
turns: `cpu_ms`, the processor time of all threads, tells how much other programs disturbed a run.
"""

import json
import os
import statistics
import sys
import tempfile
import time

STEPS = 20
PROMPT = 2048
VOCABULARY, HIDDEN, INTERMEDIATE, LAYERS = 49152, 576, 1536, 30
HEADS, KV_HEADS, HEAD_DIM = 9, 3, 64
EPS, THETA = 1e-5, 100000.0


def report(case, calls, unit, work, call):
    """Times calls of a function."""
    times, before = [], time.process_time()
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    cpu = 1e3 * (time.process_time() - before) / calls
    result = {"fastest_ms": min(times), "median_ms": statistics.median(times), "cpu_ms": cpu}
    print(json.dumps({**case, **result, unit: 1e3 * work / min(times)}), flush=True)


def with_transformers(contexts):
    import torch
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM, rms_norm_eps=EPS, rope_theta=THETA, tie_word_embeddings=True,
        max_position_embeddings=max(contexts + [PROMPT]) + STEPS,
    )
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    torch.set_grad_enabled(False)
    net = LlamaForCausalLM(config).float().eval()
    net.set_attn_implementation("sdpa")
    prompt = torch.arange(PROMPT)[None]
    case = {"case": "prefill", "with": "transformers, sdpa"}
    report(case, 2, "tokens_per_s", PROMPT, lambda: net(prompt, logits_to_keep=1))
    net.set_attn_implementation("eager")
    for context in contexts:
        # As if so many tokens had been computed.
        cache, shape = DynamicCache(), (1, KV_HEADS, context, HEAD_DIM)
        for layer in range(LAYERS):
            cache.update(torch.randn(shape), torch.randn(shape), layer)
        token = torch.tensor([[17]])
        case = {"case": "decode", "with": "transformers, eager", "context": context}
        report(case, STEPS, "tokens_per_s", 1, lambda: net(token, past_key_values=cache))


def write_gguf(path, context):
    import gguf
    import numpy

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(THETA)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("no_vocab")
    random = numpy.random.default_rng(1)

    def matrix(name, rows, columns):
        weights = 0.04 * random.standard_normal((rows, columns), dtype=numpy.float32)
        writer.add_tensor(f"{name}.weight", weights.astype(numpy.float16))

    def norm(name):
        writer.add_tensor(f"{name}.weight", numpy.ones(HIDDEN, numpy.float32))

    matrix("token_embd", VOCABULARY, HIDDEN)
    norm("output_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        norm(block + "attn_norm")
        matrix(block + "attn_q", HEADS * HEAD_DIM, HIDDEN)
        matrix(block + "attn_k", KV_HEADS * HEAD_DIM, HIDDEN)
        matrix(block + "attn_v", KV_HEADS * HEAD_DIM, HIDDEN)
        matrix(block + "attn_output", HIDDEN, HEADS * HEAD_DIM)
        norm(block + "ffn_norm")
        matrix(block + "ffn_gate", INTERMEDIATE, HIDDEN)
        matrix(block + "ffn_up", INTERMEDIATE, HIDDEN)
        matrix(block + "ffn_down", HIDDEN, INTERMEDIATE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def with_llama_cpp(contexts):
    from llama_cpp import Llama

    longest = max(contexts + [PROMPT]) + STEPS
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "random.gguf")
        write_gguf(path, longest)
        net = Llama(path, n_ctx=longest, n_threads=threads, n_threads_batch=threads, verbose=False)

        def prefill(tokens):
            net.reset()
            net.eval([token * 7919 % VOCABULARY for token in range(tokens)])

        case = {"case": "prefill", "with": "llama.cpp, f16"}
        report(case, 2, "tokens_per_s", PROMPT, lambda: prefill(PROMPT))
        for context in contexts:
            prefill(context)
            case = {"case": "decode", "with": "llama.cpp, f16", "context": context}
            report(case, STEPS, "tokens_per_s", 1, lambda: net.eval([17]))


def main():
    peers = {"transformers": with_transformers, "llama.cpp": with_llama_cpp}
    if len(sys.argv) < 2 or sys.argv[1] not in peers:
        sys.exit(__doc__)
    peers[sys.argv[1]]([int(argument) for argument in sys.argv[2:]] or [1024, 8192])


if __name__ == "__main__":
    main()
