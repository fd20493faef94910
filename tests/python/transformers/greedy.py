#!/usr/bin/env python3
"""Compares greedy texts of `ssa generate` with those of transformers, token for token.

    python tests/python/transformers/greedy.py --write FILE MODEL...
    python3 tests/python/transformers/greedy.py --ssa target/release/ssa --expected FILE MODEL

The first command writes what transformers generates in float32 for each model: for the prompts
below, or, without a tokenizer, for the first ids of `expected.safetensors`. The second runs `ssa
generate` on the prompts in FILE, needs no packages, and exits with 1 after a difference.
"""

import argparse
import json
import pathlib
import subprocess
import sys

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n",
    "Water boils at 100 degrees Celsius because",
    "1, 1, 2, 3, 5, 8,",
]
# Of a prompt that is given as ids.
PROMPT_IDS = 8
NEW_TOKENS = 48


def texts_of(path):
    """What transformers generates."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def continuation(ids):
        # The prompt is a whole sequence, so no mask is needed; the text goes on after an end.
        mask = torch.ones_like(ids)
        options = {"do_sample": False, "max_new_tokens": NEW_TOKENS}
        return model.generate(ids, attention_mask=mask, **options)[0, ids.shape[1] :]

    if not (path / "tokenizer.json").exists():
        model.generation_config.eos_token_id = None
        rows = load_file(path / "expected.safetensors")["input_ids"][:, :PROMPT_IDS].long()
        return [{"ids": row.tolist(), "tokens": continuation(row[None]).tolist()} for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(path)
    texts = []
    for prompt in PROMPTS:
        tokens = continuation(tokenizer(prompt, return_tensors="pt").input_ids)
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        text = tokenizer.decode(tokens, **options)
        texts.append({"prompt": prompt, "tokens": tokens.tolist(), "text": text})
    return texts


def generated(ssa, model, prompt):
    command = [ssa, "generate", "--model", model, "--temperature", "0", "--json"]
    command += ["--max-tokens", str(NEW_TOKENS), "--device", "cpu", "--", prompt]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{prompt!r}:\n{done.stderr}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--expected", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--ssa", type=pathlib.Path)
    parser.add_argument("models", type=pathlib.Path, nargs="+", metavar="MODEL")
    args = parser.parse_args()
    if args.write:
        texts = {path.name: texts_of(path) for path in args.models}
        args.write.write_text(json.dumps(texts, indent=1) + "\n")
        return
    [model] = args.models
    failed = 0
    for case in json.loads(args.expected.read_text())[model.name]:
        text = generated(args.ssa.resolve(), model, case["prompt"])["text"]
        same = text == case["text"]
        failed += not same
        print("same" if same else f"differs: {text!r}, expected {case['text']!r}", case["prompt"])
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
