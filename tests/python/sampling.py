#!/usr/bin/env python3
"""Writes what transformers makes of logits before it samples: the golden file of ssa's sampler.

    pip install torch transformers
    python3 tests/python/sampling.py tests/golden/sampling/transformers.json

For each case: logits, the tokens so far, the options, and the probability of every token after all
processors of `generate` (zero for the tokens that are filtered out). `cargo test -p ssa-infer`
compares.
"""

import json
import sys

import torch
import transformers
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

VOCABULARY = 40

OPTIONS = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.6, "top_k": 5},
    {"top_k": 1},
    {"top_p": 0.9},
    {"top_p": 0.2, "temperature": 1.3},
    {"top_p": 0.01},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8, "top_k": 12},
    {"temperature": 0.8, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1},
    {"temperature": 2.0, "top_k": 30, "top_p": 0.5, "min_p": 0.2, "repetition_penalty": 1.5},
]


def processors(options):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=4, n_layer=1, n_head=1))
    config = GenerationConfig(do_sample=True, **({"top_k": 0} | options))
    return model._get_logits_processor(
        generation_config=config, input_ids_seq_length=1, device="cpu")


def main():
    generator = torch.Generator().manual_seed(0)
    cases = []
    for number in range(3):
        logits = 3 * torch.randn(1, VOCABULARY, generator=generator)
        # Short decimals are read back exactly.
        logits = torch.round(logits * 64) / 64
        ids = torch.randint(VOCABULARY, (1, 6), generator=generator)
        for options in OPTIONS:
            scores = processors(options)(ids, logits.clone())
            cases.append({"logits": logits[0].tolist(), "ids": ids[0].tolist(), "options": options,
                          "probabilities": scores[0].softmax(-1).tolist()})
    golden = {"transformers": transformers.__version__, "cases": cases}
    with open(sys.argv[1], "w") as file:
        file.write(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
