"""Makes these goldens anew: python make.py REFERENCE_FOLDER [NAME ...]

REFERENCE_FOLDER holds the independent reference (sail_vl2.py, goldens.py, random_checkpoint.py). This file only calls it, drops
what would be too large and writes beside each golden a golden.json that says how it came about.
"""
import datetime
import importlib
import json
import platform
import sys
from pathlib import Path

import PIL
import safetensors
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
TINY = HERE.parent.parent / "models" / "sail-vl2-tiny"

ODD_DENSE = """force_image_size=84 max_dynamic_patch=4 vision.hidden_size=72 vision.num_attention_heads=3 vision.intermediate_size=100
 vision.num_hidden_layers=3 llm.hidden_size=88 llm.intermediate_size=99 llm.num_hidden_layers=3 llm.num_attention_heads=5
 llm.num_key_value_heads=1 llm.head_dim=20 llm.tie_word_embeddings=true""".split()
ODD_MOE = """force_image_size=60 max_dynamic_patch=6 vision.patch_size=10 vision.hidden_size=66 vision.num_attention_heads=3
 vision.intermediate_size=90 vision.num_hidden_layers=2 llm.hidden_size=76 llm.intermediate_size=50 llm.num_hidden_layers=3
 llm.num_attention_heads=6 llm.num_key_value_heads=2 llm.head_dim=36 llm.num_experts=7 llm.num_experts_per_tok=3
 llm.moe_intermediate_size=37""".split()

# name: arguments of random_checkpoint.py (None: the tiny model itself), arguments of goldens.py, drop the stored head, cases kept
GOLDENS = {
    "odd-dense": (["--seed", "11", "--set", *ODD_DENSE], ["--cases", "4", "--seed", "21"], True, (0, 3)),
    "odd-moe": (["--moe", "--seed", "12", "--shards", "3", "--tile-limit", "4", "--set", *ODD_MOE], ["--cases", "5", "--seed", "22"], False, (0, 3, 4)),
    "tiny": (None, ["--cases", "4", "--seed", "23"], False, (0, 1)),
}


def call(reference, program, *arguments):
    """Runs one program of the reference here; returns the command as it reads from the repository's root."""
    module = importlib.import_module(program)
    if hasattr(module, "load"):
        module.load = plain_experts
    sys.argv = [program, *map(str, arguments)]
    module.main()
    told = [str(a).replace(f"{HERE.parent.parent}/", "") for a in arguments]
    return f"python {reference.name}/{program}.py {' '.join(told)}"


def plain_experts(folder, dtype=torch.float32):
    """The reference's loader, with transformers' loop over experts: its grouped product refuses widths such as 37."""
    model = importlib.import_module("sail_vl2").load(folder, dtype)
    model.llm.set_experts_implementation("eager")
    return model


def make(reference, name):
    drawn, asked, headless, kept = GOLDENS[name]
    folder, commands = HERE / name, []
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    checkpoint = folder
    if drawn is None:
        checkpoint = TINY
    else:
        commands.append(call(reference, "random_checkpoint", folder, "--tokenizer", TINY / "tokenizer.json", *drawn))
    if headless:
        file = folder / "model.safetensors"
        stored = load_file(file)
        del stored["language_model.lm_head.weight"]
        save_file(stored, file, metadata={"format": "pt"})
    golden = folder / "golden.safetensors"
    commands.append(call(reference, "goldens", checkpoint, golden, *asked))
    trim(golden, kept)
    sidecar = {
        "program": "independent reference: transformers' Aimv2VisionModel and Qwen3 decoders, float32 on the bf16 weights",
        "commands": commands,
        "by": "tests/goldens/make.py, with transformers' experts_implementation=\"eager\"",
        "after": ["language_model.lm_head.weight removed from model.safetensors before goldens.py"] * headless
        + [f"only cases {', '.join(map(str, kept))} kept, with all their tensors"],
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, tokenizers, safetensors, PIL)} | {"python": platform.python_version()},
        "date": datetime.date.today().isoformat(),
    }
    (folder / "golden.json").write_text(json.dumps(sidecar, indent=1) + "\n")


def trim(golden, kept):
    """Drops the cases that are not kept, their pictures too."""
    with safetensors.safe_open(golden, "pt") as f:
        about = f.metadata()
    tensors = load_file(golden)
    for case in list(about):
        if int(case) not in kept:
            del about[case]
            golden.with_suffix(f".{case}.png").unlink(missing_ok=True)
    save_file({n: t for n, t in tensors.items() if int(n.split(".")[0]) in kept}, golden, metadata=about)


if __name__ == "__main__":
    folder, names = Path(sys.argv[1]).resolve(), sys.argv[2:] or list(GOLDENS)
    sys.path.insert(0, str(folder))
    for each in names:
        make(folder, each)
