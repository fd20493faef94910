"""Writes tiny random checkpoints of plain families with transformers itself, and its logits.

    python tests/python/transformers/write_tiny.py tests/golden/families

Under transformers 5 this writes everything: a directory for each case with `config.json`, weights
and `expected.safetensors` (`input_ids`, `logits` in float32). Under transformers 4 it then adds
`config.transformers-4.json` to each directory, as that version writes it, and exits with 1 unless
its logits are the same.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {
    "vocab_size": 48,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
MSCALE = {
    "mscale": 2.0,
    "mscale_all_dim": 0.5,
    "beta_fast": 6.0,
    "beta_slow": 0.5,
    "truncate": False,
}
LINEAR = {"rope_type": "linear", "factor": 2.0}
# Name: family, keys of its configuration, type of the weights, largest shard.
CASES = {
    "llama": ("llama", {}, torch.float32, "1GB"),
    "llama_tied_llama3": (
        "llama",
        {"tie_word_embeddings": True, "rope_scaling": LLAMA3},
        torch.float32,
        "1GB",
    ),
    "llama_linear": ("llama", {"rope_scaling": LINEAR}, torch.float32, "1GB"),
    "llama_bf16": ("llama", {}, torch.bfloat16, "1GB"),
    "llama_sharded": ("llama", {}, torch.float32, "20KB"),
    "mistral": ("mistral", {"sliding_window": None}, torch.float32, "1GB"),
    "qwen2_tied": ("qwen2", {"tie_word_embeddings": True}, torch.float32, "1GB"),
    "qwen3": ("qwen3", {}, torch.float32, "1GB"),
    "llama_yarn": ("llama", {"rope_scaling": YARN}, torch.float32, "1GB"),
    "llama_yarn_mscale": ("llama", {"rope_scaling": YARN | MSCALE}, torch.float32, "1GB"),
}
TOKENS = 24
TOLERANCE = 1e-5


def build(family, extra, dtype, seed):
    config = AutoConfig.for_model(family, **SIZES, **extra)
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            # Large enough for attention that prefers some keys to others.
            scale = 0.5 if parameter.dim() > 1 else 0.2
            parameter.copy_(scale * values + (1.0 if "norm" in name else 0.0))
    return model.to(dtype)


def logits_of(path, ids):
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        return model.eval()(ids).logits.contiguous()


def write(path, seed, family, extra, dtype, shard):
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(0, SIZES["vocab_size"], (2, TOKENS), generator=generator)
    model = build(family, extra, dtype, seed)
    with tempfile.TemporaryDirectory() as directory:
        written = pathlib.Path(directory)
        model.save_pretrained(written, max_shard_size=shard)
        logits = logits_of(written, ids)
        if transformers.__version__.startswith("4."):
            error = (load_file(path / "expected.safetensors")["logits"] - logits).abs().max().item()
            print(f"{path.name}: logits differ by {error:.1e}")
            shutil.copy(written / "config.json", path / "config.transformers-4.json")
            return error <= TOLERANCE
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        for file in sorted(written.iterdir()):
            if file.name != "generation_config.json":
                shutil.copy(file, path)
        metadata = {"transformers": transformers.__version__, "torch": torch.__version__}
        expected = {"input_ids": ids.int(), "logits": logits}
        save_file(expected, path / "expected.safetensors", metadata=metadata)
        print(f"{path.name}: {sum(file.stat().st_size for file in path.iterdir())} bytes")
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    directory = parser.parse_args().directory
    same = [write(directory / name, seed, *case) for seed, (name, case) in enumerate(CASES.items())]
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
