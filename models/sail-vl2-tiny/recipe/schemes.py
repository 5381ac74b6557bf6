"""Exact answers of each scheme on the same held-out scenes: python schemes.py [--scenes 4000] [--seed 12345]

Draws the scenes, compiles the checkpoint one folder up in every scheme, answers every scene with every artifact, and prints a
table of exact answers by kind. Further words go to every `sailc compile`.
"""
import argparse
import datetime
import json
import subprocess
import tempfile
from pathlib import Path

import exam

ROOT = Path(__file__).resolve().parents[3]


def answers(binaries, checkpoint, folder, scheme, more):
    """What `sail eval` says of one scheme."""
    artifact = folder / f"{scheme}.sail"
    compile_ = [binaries / "sailc", "compile", checkpoint, "--quant", scheme, *(more if scheme != "bf16" else []), "-o", artifact]
    subprocess.run(compile_, check=True, stdout=subprocess.DEVNULL)
    said = subprocess.run([binaries / "sail", "eval", artifact, "--scenes", folder, "--json"], check=True, capture_output=True)
    return json.loads(said.stdout)


def table(found):
    """Shares of exact answers, a column a scheme."""
    schemes = list(found)
    lines = ["| kind of question | of | " + " | ".join(schemes) + " |", "| --- | ---: |" + " ---: |" * len(schemes)]
    first = found[schemes[0]]
    rows = [(kind, lambda f, kind=kind: f["kinds"][kind]) for kind in sorted(first["kinds"])] + [("all", lambda f: f["all"])]
    for name, of in rows:
        shares = [f"{of(found[s])['exact'] / of(found[s])['of']:.4f}" for s in schemes]
        lines.append(f"| {name} | {of(first)['of']} | " + " | ".join(shares) + " |")
    return lines


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--scenes", type=int, default=4000)
    p.add_argument("--seed", type=int, default=12345)
    p.add_argument("--schemes", default="bf16,int8,int4")
    p.add_argument("--checkpoint", type=Path, default=ROOT / "models/sail-vl2-tiny")
    p.add_argument("--binaries", type=Path, default=ROOT / "target/release", help="folder of sailc and sail")
    a, more = p.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        exam.write(folder, a.scenes, a.seed)
        found = {scheme: answers(a.binaries, a.checkpoint, folder, scheme, more) for scheme in a.schemes.split(",")}
    print(f"{datetime.date.today()}, {a.scenes} scenes, seed {a.seed}")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
