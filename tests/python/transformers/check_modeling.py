"""Checks `modeling_ssa.py` under the installed version of transformers.

    python tests/python/transformers/check_modeling.py tests/golden/model/*

Each argument is a checkpoint directory. Logits are compared with `expected.safetensors`, outputs of
the released code, where that exists. Everything else is compared with the model itself: generation
with a cache, padding, cropping, reordering, saving. Exits with 1 after a failure.
"""

import argparse
import gc
import json
import pathlib
import shutil
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM

TOLERANCE = 1e-4
FAILURES = []


def check(name, ok, detail=""):
    print(f"{'ok    ' if ok else 'FAILED'} {name} {detail}", flush=True)
    if not ok:
        FAILURES.append(name)


def close(name, a, b, tolerance=TOLERANCE):
    same = a.shape == b.shape
    error = (a.float() - b.float()).abs().max().item() if same else float("nan")
    check(name, same and error <= tolerance, f"max error {error:.2e}")


def load(path, dtype=torch.float32, auto=AutoModelForCausalLM):
    # A buffer that loading forgets to fill would hold this.
    poison = [torch.full((1 << 20,), 0.5) for _ in range(32)]
    del poison
    gc.collect()
    model = auto.from_pretrained(path, trust_remote_code=True, dtype=dtype)
    model.set_attn_implementation("eager")
    return model.eval()


def modes_of(model):
    return ["sparse"] if model.config.attention_method == "nsa" else ["full", "sparse"]


def golden(name, model, path):
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
                close(f"{name} {key} {mode} {implementation}", logits, expected[key])


def greedy(model, ids, tokens, **kwargs):
    options = {"do_sample": False, "max_new_tokens": tokens, "min_new_tokens": tokens}
    return model.generate(ids, pad_token_id=0, **options, **kwargs)


def by_hand(model, ids, tokens):
    """Greedy decoding that runs the whole text for every token."""
    for _ in range(tokens):
        logits = model(ids, use_cache=False).logits[:, -1]
        logits[:, model.config.eos_token_id] = float("-inf")
        ids = torch.cat((ids, logits.argmax(-1, keepdim=True)), 1)
    return ids


def generation(name, model, vocab_size):
    torch.manual_seed(0)
    ids = torch.randint(3, vocab_size, (2, 75))
    new = 24
    whole = by_hand(model, ids, new)
    check(f"{name} cached greedy", torch.equal(greedy(model, ids, new), whole))
    uncached = greedy(model, ids, new, use_cache=False)
    check(f"{name} greedy without cache", torch.equal(uncached, whole))
    static = greedy(model, ids, new, cache_implementation="static", disable_compile=True)
    check(f"{name} static cache", torch.equal(static, whole))

    pad = 21
    padded = torch.cat((torch.zeros(2, pad, dtype=ids.dtype), ids), 1)
    mask = torch.cat((torch.zeros(2, pad, dtype=torch.long), torch.ones_like(ids)), 1)
    logits = model(padded, attention_mask=mask).logits[:, pad:]
    close(f"{name} left padding", logits, model(ids).logits)
    text = greedy(model, padded, new, attention_mask=mask)[:, pad:]
    check(f"{name} left padding, greedy", torch.equal(text, whole))
    ragged = mask.clone()
    ragged[1, : pad + 9] = 0
    alone = model(padded[1:, pad + 9 :]).logits
    close(f"{name} ragged batch", model(padded, attention_mask=ragged).logits[1:, pad + 9 :], alone)

    first = model(ids[:, :40], use_cache=True)
    second = model(ids[:, 40:], past_key_values=first.past_key_values)
    joined = torch.cat((first.logits, second.logits), 1)
    close(f"{name} continued from a cache", joined, model(ids).logits)
    kept = model(ids, logits_to_keep=1).logits
    close(f"{name} logits_to_keep", kept, model(ids).logits[:, -1:])

    embeds = model.get_input_embeddings()(ids)
    text = greedy(model, None, new, inputs_embeds=embeds)
    check(f"{name} inputs_embeds", torch.equal(text, whole[:, 75:]))
    beams = greedy(model, ids, new, num_beams=3)
    without = greedy(model, ids, new, num_beams=3, use_cache=False)
    check(f"{name} beams with and without cache", torch.equal(beams, without))
    # Repeated text, so that some drafts are accepted and others cropped.
    repeated = ids[:1, :25].repeat(1, 3)
    looked_up = greedy(model, repeated, new, prompt_lookup_num_tokens=4)
    check(f"{name} prompt lookup", torch.equal(looked_up, greedy(model, repeated, new)))


def round_trip(name, model, path, ids):
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        logits = model(ids).logits
        again = load(directory)
        again.set_attention(model.config.attention_mode)
        close(f"{name} saved and loaded", again(ids).logits, logits, 0.0)
    base = load(path, auto=AutoModel)
    base.config.attention_mode = model.config.attention_mode
    close(f"{name} AutoModel", model.lm_head(base(ids).last_hidden_state), logits, 1e-5)
    for dtype in [torch.bfloat16, torch.float16]:
        half = load(path, dtype)
        half.config.attention_mode = model.config.attention_mode
        out = half(ids).logits
        close(f"{name} {dtype}", out, logits, 0.15 * logits.abs().max().item())


def with_modeling_file(path, directory):
    """A copy of a checkpoint that transformers can load with `trust_remote_code=True`."""
    copy = pathlib.Path(directory) / path.name
    shutil.copytree(path, copy)
    here = pathlib.Path(__file__).parent
    for name in ["configuration_ssa.py", "modeling_ssa.py"]:
        shutil.copy(here / name, copy)
    config = json.loads((copy / "config.json").read_text())
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
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def check_model(path):
    model = load(path)
    if (path / "expected.safetensors").exists():
        golden(path.name, model, path)
    for mode in modes_of(model):
        model.set_attention(mode)
        name = f"{path.name} {mode}"
        generation(name, model, model.config.vocab_size)
        round_trip(name, model, path, torch.arange(3, 63)[None] % model.config.vocab_size)


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as directory:
        for path in parser.parse_args().models:
            check_model(with_modeling_file(path, directory))
    print(f"{len(FAILURES)} failed")
    sys.exit(bool(FAILURES))


if __name__ == "__main__":
    main()
