"""Loads an exported adapter over its base with transformers and PEFT and compares what they compute with ours.

usage: peft_load.py FOLDER

FOLDER holds base/ (config.json, model.safetensors), adapter/ (adapter_config.json, adapter_model.safetensors) and
expected.json: a list of {"prefix": [bytes], "log_probabilities": [256 numbers]}, what follows each prefix. Logits are
compared as log-probabilities, which differ from them by one constant per position. Prints the largest difference and
fails when it is above 1e-3, when a tensor of the adapter finds no place, or when the adapter changes nothing.
"""

import json
import pathlib
import sys

import torch
from peft import PeftModel
from peft.utils import load_peft_weights
from transformers import LlamaForCausalLM

DIFFERENCE_MAX = 1e-3


def log_probabilities(model, prefix):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prefix])).logits[0, -1]
    return torch.log_softmax(logits.double(), dim=-1)


def main(folder):
    expected = json.loads((folder / "expected.json").read_text())
    base = LlamaForCausalLM.from_pretrained(folder / "base", torch_dtype=torch.float32)
    base.eval()
    before = [log_probabilities(base, one["prefix"]) for one in expected]

    model = PeftModel.from_pretrained(base, folder / "adapter")
    model.eval()
    given = load_peft_weights(str(folder / "adapter"), device="cpu")
    taken = {name.replace(".default", ""): tensor for name, tensor in model.named_parameters() if "lora_" in name}
    if set(given) != set(taken):
        sys.exit(f"tensors without a place or a value: {sorted(set(given) ^ set(taken))}")
    for name, tensor in given.items():
        if not torch.equal(tensor.float(), taken[name].float()):
            sys.exit(f"{name} was not loaded as exported")

    worst, moved = 0.0, 0.0
    for one, plain in zip(expected, before):
        ours = torch.tensor(one["log_probabilities"], dtype=torch.float64)
        theirs = log_probabilities(model, one["prefix"])
        worst = max(worst, (ours - theirs).abs().max().item())
        moved = max(moved, (plain - theirs).abs().max().item())
    print(f"largest difference {worst:.2e} over {len(expected)} prefixes; the adapter moves them by {moved:.2e}")
    if not worst <= DIFFERENCE_MAX:
        sys.exit(f"they differ by more than {DIFFERENCE_MAX}")
    if not moved > 10 * DIFFERENCE_MAX:
        sys.exit("the adapter changes next to nothing: nothing was compared")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
