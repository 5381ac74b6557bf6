"""Exact answers of each scheme on the same held-out scenes: python schemes.py [--scenes 4000] [--seed 12345]

Draws the scenes, compiles the checkpoint one folder up in every scheme, with and without calibration on other scenes, answers
every scene with every artifact, and prints a table of exact answers by kind. A scheme is that of the weights; `bf16:int8` is bf16
with a cache of 8 bits.
"""
import argparse
import datetime
import json
import subprocess
import tempfile
from pathlib import Path

import exam

ROOT = Path(__file__).resolve().parents[3]
# Scenes that are looked at for calibrating; no exam has this seed.
LOOKED_AT, THEIR_SEED = 200, 99


def run(*words):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout


def answers(a, folder, scheme, stats):
    """What `sail eval` says of one artifact."""
    artifact = folder / "model.sail"
    weights, _, cache = scheme.partition(":")
    options = ["--quant", weights, "--kv", cache or "bf16"] + (["--calibration", stats] if stats else [])
    run(a.binaries / "sailc", "compile", a.checkpoint, *options, "-o", artifact)
    return json.loads(run(a.binaries / "sail", "eval", artifact, "--scenes", folder, "--json"))


def table(found):
    """Shares of exact answers, a column an artifact."""
    lines = ["| kind of question | of | " + " | ".join(found) + " |", "| --- | ---: |" + " ---: |" * len(found)]
    first = next(iter(found.values()))
    rows = [(kind, lambda f, kind=kind: f["kinds"][kind]) for kind in sorted(first["kinds"])] + [("all", lambda f: f["all"])]
    for name, of in rows:
        shares = [f"{of(f)['exact'] / of(f)['of']:.4f}" for f in found.values()]
        lines.append(f"| {name} | {of(first)['of']} | " + " | ".join(shares) + " |")
    return lines


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--scenes", type=int, default=4000)
    p.add_argument("--seed", type=int, default=12345)
    p.add_argument("--schemes", default="int8,int8-weight,int4,bf16:int8")
    p.add_argument("--checkpoint", type=Path, default=ROOT / "models/sail-vl2-tiny")
    p.add_argument("--binaries", type=Path, default=ROOT / "target/release", help="folder of sailc and sail")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, looked_at = Path(name) / "exam", Path(name) / "looked-at"
        exam.write(folder, a.scenes, a.seed)
        exam.write(looked_at, LOOKED_AT, THEIR_SEED)
        stats = looked_at / "stats.safetensors"
        run(a.binaries / "sailc", "calibrate", a.checkpoint, "--prompts", looked_at / "prompts.json", "-o", stats)
        found = {"bf16": answers(a, folder, "bf16", None)}
        for scheme in a.schemes.split(","):
            found[scheme] = answers(a, folder, scheme, None)
            if not scheme.startswith("bf16"):
                found[f"{scheme} calibrated"] = answers(a, folder, scheme, stats)
    print(f"{datetime.date.today()}, {a.scenes} scenes, seed {a.seed}")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
