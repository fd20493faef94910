#!/usr/bin/env python3
"""Checks the Python files of checkpoints under the installed version of transformers.

    python tests/python/transformers/check_modeling.py --ssa target/release/ssa \\
        runs/demo/checkpoint --golden tests/golden/model/*

Each argument is a checkpoint directory; those after `--plain` are models without gates and are
converted. Logits of golden cases are compared with
`expected.safetensors`, outputs of the released code. Other checkpoints are compared with
`ssa forward`, and what `ssa export` writes is loaded again. Everything else is compared with the
model itself: generation with a cache, padding, cropping, reordering, saving. Most of these
comparisons run in f64, where no choice of a token hangs on a rounding error. A golden case given
among the first arguments is checked like them. Exits with 1 after a failure.
"""

import argparse
import copy
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PYTHON_FILES = pathlib.Path(__file__).parents[3] / "crates/ssa-model/src/checkpoint/python"
# Absolute error of logits in f32 against another implementation, and in f64 against this one.
F32, F64 = 1e-4, 1e-9
NEW = 24
CHECKS, FAILURES = [], []


def check(name, ok, detail=""):
    CHECKS.append(name)
    if not ok:
        FAILURES.append(name)
        print(f"FAILED {name} {detail}", flush=True)


def close(name, a, b, tolerance):
    same = a.shape == b.shape
    error = (a.double() - b.double()).abs().max().item() if same else float("nan")
    check(name, same and error <= tolerance, f"max error {error:.2e}, expected {tolerance:.0e}")


def load(path, dtype=torch.float32, auto=AutoModelForCausalLM):
    # A tensor that loading forgets to fill would hold this.
    poison = [torch.full((1 << size,), 0.5) for size in range(4, 20) for _ in range(8)]
    del poison
    model = auto.from_pretrained(path, trust_remote_code=True, dtype=dtype)
    model.set_attn_implementation("eager")
    return model.eval()


def modes_of(model):
    return ["sparse"] if model.config.attention_method == "nsa" else ["full", "sparse"]


def golden(path):
    """Logits of the released code."""
    name, model = path.name, load(path)
    expected = load_file(path / "expected.safetensors")
    for mode in modes_of(model):
        for key in [f"logits.{mode}", "logits.eval"]:
            default = type(model.config)(**model.config.to_dict())
            if key not in expected or (key == "logits.eval" and default.attention_mode != mode):
                continue
            model.set_attention(mode)
            for implementation in ["sdpa", "eager"] if mode == "full" else ["eager"]:
                model.set_attn_implementation(implementation)
                logits = model(expected["input_ids"]).logits
                close(f"{name} {key} {mode} {implementation}", logits, expected[key], F32)


def greedy(model, ids, tokens=NEW, **kwargs):
    """Greedy generation of exactly this many tokens: none of them ends the text."""
    options = {"do_sample": False, "max_new_tokens": tokens, "pad_token_id": 0}
    return model.generate(ids, suppress_tokens=[model.config.eos_token_id], **options, **kwargs)


def by_hand(model, ids, tokens):
    """Greedy decoding that runs the whole text for every token."""
    for _ in range(tokens):
        logits = model(ids, use_cache=False).logits[:, -1]
        logits[:, model.config.eos_token_id] = float("-inf")
        ids = torch.cat((ids, logits.argmax(-1, keepdim=True)), 1)
    return ids


def begins(name, text, whole, tokens):
    """`text` is the beginning of `whole` with at least `tokens` tokens: assisted generation of
    transformers 4 may exceed `max_new_tokens` by a few."""
    length = text.shape[1]
    check(name, tokens <= length <= whole.shape[1] and torch.equal(text, whole[:, :length]))


def generation(name, model):
    torch.manual_seed(0)
    ids = torch.randint(3, model.config.vocab_size - 1, (2, 75))
    logits = model(ids).logits
    whole = by_hand(model, ids, NEW)
    check(f"{name} cached greedy", torch.equal(greedy(model, ids), whole))
    static = greedy(model, ids, cache_implementation="static", disable_compile=True)
    check(f"{name} static cache", torch.equal(static, whole))
    check(f"{name} greedy without cache", torch.equal(greedy(model, ids, use_cache=False), whole))

    pad = 21
    padded = torch.cat((torch.zeros(2, pad, dtype=ids.dtype), ids), 1)
    mask = torch.cat((torch.zeros(2, pad, dtype=torch.long), torch.ones_like(ids)), 1)
    close(f"{name} left padding", model(padded, attention_mask=mask).logits[:, pad:], logits, F64)
    text = greedy(model, padded, attention_mask=mask)[:, pad:]
    check(f"{name} left padding, greedy", torch.equal(text, whole))
    ragged = mask.clone()
    ragged[1, : pad + 9] = 0
    alone = model(padded[1:, pad + 9 :]).logits
    rows = model(padded, attention_mask=ragged).logits[1:, pad + 9 :]
    close(f"{name} ragged batch", rows, alone, F64)

    first = model(ids[:, :40], use_cache=True)
    second = model(ids[:, 40:], past_key_values=first.past_key_values)
    joined = torch.cat((first.logits, second.logits), 1)
    close(f"{name} continued from a cache", joined, logits, F64)
    kept = model(ids, logits_to_keep=1).logits
    close(f"{name} logits_to_keep", kept, logits[:, -1:], F64)
    shifted = model(ids, position_ids=torch.arange(7, 82).expand(2, -1)).logits
    # RoPE sees distances only, up to its f32 angles.
    close(f"{name} position_ids", shifted, logits, F32)

    embeds = model.get_input_embeddings()(ids)
    text = greedy(model, None, inputs_embeds=embeds)
    check(f"{name} inputs_embeds", torch.equal(text, whole[:, 75:]))
    beams = greedy(model, ids, num_beams=3)
    without = greedy(model, ids, num_beams=3, use_cache=False)
    check(f"{name} beams with and without cache", torch.equal(beams, without))

    # Repeated text, so that some drafts are accepted and others cropped.
    repeated = ids[:1, :25].repeat(1, 3)
    whole = greedy(model, repeated, NEW + 8)
    tokens = repeated.shape[1] + NEW
    looked_up = greedy(model, repeated, prompt_lookup_num_tokens=4)
    begins(f"{name} prompt lookup", looked_up, whole, tokens)
    draft = copy.deepcopy(model)
    draft.model.norm.weight += 0.3 * torch.randn_like(draft.model.norm.weight)
    begins(f"{name} assisted", greedy(model, repeated, assistant_model=draft), whole, tokens)


def round_trip(name, model, path, ids):
    """Saving, the base model, and types of weights."""
    logits = model(ids).logits
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        again = load(directory)
        again.set_attention(model.config.attention_mode)
        close(f"{name} saved and loaded", again(ids).logits, logits, 0.0)
    base = load(path, auto=AutoModel)
    base.config.attention_mode = model.config.attention_mode
    close(f"{name} AutoModel", model.lm_head(base(ids).last_hidden_state), logits, 0.0)
    for dtype, share in [(torch.bfloat16, 0.15), (torch.float16, 0.15), (torch.float64, 1e-4)]:
        other = load(path, dtype)
        other.config.attention_mode = model.config.attention_mode
        out = other(ids).logits
        close(f"{name} {dtype}", out, logits, share * logits.abs().max().item())


def serving_engine(name, model, path, ids):
    """Full attention through a back-end that is registered as those of vLLM and SGLang are: the
    base model is built without weights, and each layer calls the back-end once."""
    called = []

    def attend(module, q, k, v, attention_mask, scaling, **kwargs):
        called.append(module.layer_idx)
        check(f"{name} engine, no mask", attention_mask is None)
        check(f"{name} engine, arguments arrive", kwargs["attention_instances"] == "instances")
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        attention = torch.nn.functional.scaled_dot_product_attention
        return attention(q, k, v, is_causal=True, scale=scaling).transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS.register("engine", attend)
    config = AutoConfig.from_pretrained(path, trust_remote_code=True)
    config._attn_implementation = "engine"
    with torch.device("meta"):
        base = AutoModel.from_config(config, trust_remote_code=True, dtype=torch.float32)
    check(f"{name} engine, no buffers", not list(base.buffers()))
    base.to_empty(device="cpu").load_state_dict(model.model.state_dict())
    positions = torch.arange(ids.shape[1])[None]
    hidden = base(
        input_ids=ids,
        position_ids=positions,
        use_cache=False,
        attention_instances="instances",
        return_dict=False,
    )[0]
    close(f"{name} engine", model.lm_head(hidden), model(ids).logits, F32)
    check(f"{name} engine, one call a layer", called == list(range(len(base.layers))))


class Ssa:
    """The program."""

    def __init__(self, program, directory):
        self.program, self.directory = program.resolve(), pathlib.Path(directory)

    def run(self, *arguments):
        command = [str(argument) for argument in (self.program, *arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}:\n{done.stderr}")

    def logits(self, model, ids, mode, *arguments):
        files = self.directory / "ids.safetensors", self.directory / "logits.safetensors"
        save_file({"input_ids": ids}, files[0])
        given = ["--input", files[0], "--output", files[1], "--overwrite", "--device", "cpu"]
        self.run("forward", "--model", model, "--attention", mode, *given, *arguments)
        return load_file(files[1])["logits"]

    def convert(self, model):
        path = pathlib.Path(tempfile.mkdtemp(dir=self.directory)) / model.name
        self.run("convert", "--from", model, "--to", path, "--block-size", 8, "--block-counts", 2)
        return path

    def export(self, model, layout):
        path = pathlib.Path(tempfile.mkdtemp(dir=self.directory)) / layout
        self.run("export", "--model", model, "--to", path, "--as", layout)
        return path


def against_ssa(name, path, ssa):
    """Logits of `ssa forward` in every mode, at several budgets; exports."""
    model = load(path)
    torch.manual_seed(1)
    tokens = min(200, model.config.max_position_embeddings)
    ids = torch.randint(0, model.config.vocab_size, (2, tokens))
    for mode in modes_of(model):
        for size, counts, rule in [(16, 4, "exact"), (8, 3, "exact"), (16, 16, "reference")]:
            model.set_attention(mode, size, counts, rule)
            budget = ["--budget", f"{size}x{counts}", "--selection", rule]
            expected = ssa.logits(path, ids, mode, *budget)
            close(f"{name} {mode} {size}x{counts} {rule}", model(ids).logits, expected, F32)
    model = load(path)
    logits = model(ids).logits
    close(f"{name} export", load(ssa.export(path, "ssa"))(ids).logits, logits, 0.0)

    mode = modes_of(model)[0]
    model.set_attention(mode)
    for layer in model.model.layers:
        layer.self_attn.g_proj.weight.zero_()
    logits = model(ids).logits
    with tempfile.TemporaryDirectory() as directory:
        # What transformers saves, `ssa` reads.
        model.save_pretrained(directory)
        close(f"{name} saved, ssa", ssa.logits(directory, ids, mode), logits, F32)
        if mode == "full":
            plain = AutoModelForCausalLM.from_pretrained(ssa.export(directory, "llama")).eval()
            check(f"{name} export, class", type(plain).__module__.startswith("transformers."))
            close(f"{name} export, llama", plain(ids).logits, logits, F32)


class RegisteredConfig(LlamaConfig):
    model_type = "llama-nsa"


class RegisteredModel(LlamaForCausalLM):
    config_class = RegisteredConfig


def registered_code(name, path):
    """The released code registers its own classes for "llama-nsa"; our files do not displace it.
    Comes last: the registration holds for the process."""
    AutoConfig.register("llama-nsa", RegisteredConfig)
    AutoModelForCausalLM.register(RegisteredConfig, RegisteredModel)
    model = AutoModelForCausalLM.from_pretrained(path)
    check(f"{name} registered code", type(model) is RegisteredModel)
    config = json.loads((path / "config.json").read_text())
    for key in ["block_size", "block_counts", "window_size", "head_dim", "tie_word_embeddings"]:
        check(f"{name} registered code, {key}", getattr(model.config, key) == config[key])
    rope = getattr(model.config, "rope_parameters", None) or {"rope_theta": model.config.rope_theta}
    check(f"{name} registered code, theta", rope["rope_theta"] == config["rope_theta"])
    weight = load_file(path / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    close(f"{name} registered code, weights", model.model.layers[1].mlp.up_proj.weight, weight, 0)


def against_plain(path, ssa):
    """A model without gates: the model of transformers and the one that `ssa convert` makes."""
    converted = ssa.convert(path)
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    ids = torch.arange(3, 63)[None] % plain.config.vocab_size
    expected = plain(ids).logits
    close(f"{path.name} converted", load(converted)(ids).logits, expected, F32)
    against_ssa(path.name, converted, ssa)


def complete(path, directory):
    """A checkpoint with its Python files: the directory itself, or a copy of a golden case."""
    config = json.loads((path / "config.json").read_text())
    if "auto_map" in config:
        return path
    path_of_copy = pathlib.Path(tempfile.mkdtemp(dir=directory)) / path.name
    shutil.copytree(path, path_of_copy)
    for file in PYTHON_FILES.glob("*.py"):
        shutil.copy(file, path_of_copy)
    # The name of a golden case begins with its method.
    config.setdefault("attention_method", path.name.split("_")[0])
    if "streaming_topk" in path.name:
        config["selection"] = "reference"
    config["architectures"] = ["SSAForCausalLM"]
    config["auto_map"] = {
        "AutoConfig": "configuration_ssa.SSAConfig",
        "AutoModel": "modeling_ssa.SSAModel",
        "AutoModelForCausalLM": "modeling_ssa.SSAForCausalLM",
    }
    (path_of_copy / "config.json").write_text(json.dumps(config))
    return path_of_copy


def name_of(path):
    return path.parent.name if path.name == "checkpoint" else path.name


def check_model(path, ssa):
    name, model = name_of(path), load(path)
    ids = torch.arange(3, 63)[None] % model.config.vocab_size
    double = load(path, torch.float64)
    for mode in modes_of(model):
        model.set_attention(mode).set_attn_implementation("eager")
        round_trip(f"{name} {mode}", model, path, ids)
        generation(f"{name} {mode}", double.set_attention(mode))
        if mode == "full":
            serving_engine(name, model, path, ids)
    against_ssa(name, path, ssa)


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    parser.add_argument("--golden", nargs="*", type=pathlib.Path, default=[])
    parser.add_argument("--plain", nargs="*", type=pathlib.Path, default=[])
    parser.add_argument("--ssa", type=pathlib.Path, required=True, help="the program")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as directory:
        ssa = Ssa(args.ssa, directory)
        for path in args.models:
            check_model(complete(path, directory), ssa)
        for path in args.plain:
            against_plain(path, ssa)
        for path in args.golden:
            golden(complete(path, directory))
        if args.models:
            path = args.models[-1]
            registered_code(name_of(path), path)
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    print(f"{versions}: {len(CHECKS)} checks, {len(FAILURES)} failed")
    sys.exit(bool(FAILURES))


if __name__ == "__main__":
    main()
