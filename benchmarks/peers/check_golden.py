"""Checks torch_ssa.py against cases of the released SSA code: logits, losses and every gradient.

    python3 check_golden.py --golden DIR      # DIR/model/<case>/{config.json,model,expected}...

Cases: ssa (both streams), moba and full. Those that need the released kernel's inexact selection
are skipped, as is nsa, which torch_ssa.py does not implement. Logits must agree within 2e-4,
losses within 2e-5, gradients within 1e-4 of the largest entry of their tensor, or of 1e-2 where
that is smaller: a tensor whose terms cancel carries their rounding.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from formulations import sparse_gathered, sparse_masked, sparse_tiled
from torch_ssa import (
    IGNORE_INDEX,
    Documents,
    Method,
    ModelConfig,
    SsaModel,
    Stream,
    losses,
    streams_of,
)

ALPHA = 10.0
SMALLEST_SCALE = 1e-2
CASES: list[tuple[str, Method, dict[str, Stream]]] = [
    ("ssa_bs16_k4_T200", "ssa", {"full": "full", "sparse": "sparse"}),
    ("ssa_bs32_k2_T161", "ssa", {"full": "full", "sparse": "sparse"}),
    ("moba_bs16_k4_T200", "moba", {"train": "sparse"}),
    ("full_T200", "full", {"train": "full"}),
]


def relative_error(grad: Tensor | None, expected: Tensor) -> float:
    """The largest difference in units of the largest entry; infinite without a gradient or with a
    NaN."""
    if grad is None or not grad.isfinite().all():
        return math.inf
    return ((grad - expected).abs().max() / expected.abs().max().clamp(min=SMALLEST_SCALE)).item()


def check_stream(
    case: Path, method: Method, name: str, stream: Stream, config: ModelConfig
) -> dict[str, float]:
    """The largest errors of one forward and backward."""
    model = SsaModel(config)
    model.load_state_dict(load_file(case / "model.safetensors"))
    expected = load_file(case / "expected.safetensors")
    ids = expected["input_ids"].long()
    rows, tokens = ids.shape
    labels = torch.cat([ids[:, 1:], torch.full((rows, 1), IGNORE_INDEX)], dim=1)
    output = model(ids.flatten(), Documents([tokens] * rows), streams_of(method, stream))
    cross_entropy, alignment = losses(
        output, labels.flatten(), config, rows * (tokens - 1), rows * tokens
    )
    loss = cross_entropy + ALPHA * alignment
    loss.backward()

    logits = expected[f"logits.{'eval' if name == 'train' else name}"]
    grads = {
        key: relative_error(parameter.grad, expected[f"grad.{name}.{key}"])
        for key, parameter in model.named_parameters()
    }
    wanted_loss = json.loads((case / "expected.json").read_text())[f"train_loss.{name}"]
    return {
        "logits": (output.logits.view_as(logits) - logits).abs().max().item(),
        "loss": abs(loss.item() - wanted_loss),
        "gradient": max(grads.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--golden", type=Path, required=True)
    golden: Path = parser.parse_args().golden
    limits = {"logits": 2e-4, "loss": 2e-5, "gradient": 1e-4}
    failed = False
    for case_name, method, streams in CASES:
        case = golden / "model" / case_name
        config_values = json.loads((case / "config.json").read_text())
        for formulation in (sparse_tiled, sparse_masked, sparse_gathered):
            config = ModelConfig.from_dict(config_values, sparse_attention=formulation)
            for name, stream in streams.items():
                errors = check_stream(case, method, name, stream, config)
                bad = any(not errors[key] <= limit for key, limit in limits.items())
                failed |= bad
                shown = "  ".join(f"{key} {error:.2e}" for key, error in errors.items())
                verdict = "FAILED" if bad else "ok"
                print(f"{case_name:18} {formulation.__name__:16} {stream:7} {shown}  {verdict}")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
