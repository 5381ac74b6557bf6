"""Refuses artifacts for a GPU that lack machine code, or a folder that is too large: packed.py SAILC FILE … | --size FOLDER

Their PTX would be assembled by the driver of the GPU that they are opened on, so that seconds of its work would be
measured as time to the first logits.
"""
import json
import subprocess
import sys
from pathlib import Path

HINT = "`cargo ptxas` installs the assembler where sailc looks for it; then pack again"
# What machines with a GPU are sent: a folder, this large at most.
MOST_BYTES = 60_000_000


def excess(folder, most=MOST_BYTES):
    """Why the folder is too large, with its largest files, or None."""
    sizes = sorted(((file.stat().st_size, str(file.relative_to(folder))) for file in Path(folder).rglob("*") if file.is_file()), reverse=True)
    total = sum(size for size, _ in sizes)
    if total <= most:
        return None
    largest = ", ".join(f"{name} {size:,}" for size, name in sizes[:4])
    return f"its files take {total:,} bytes and may take {most:,}: {largest}"


def lack(document):
    """Why the artifact that `sailc inspect --json` describes so is not to be packed, or None."""
    cuda = document.get("cuda")
    if cuda is None:
        return "it is for no GPU"
    if not cuda["cubin"]:
        return f"it holds PTX without machine code for {cuda['architecture']}"
    bare = [kernel["name"] for kernel in cuda["kernels"] if kernel["registers"] is None]
    if bare or not cuda["kernels"]:
        return f"its machine code lacks {len(bare)} of {len(cuda['kernels'])} kernels: {', '.join(bare[:3])}"
    return None


def refuse(what, because, hint):
    raise SystemExit(f"error: `{what}` cannot be packed\n  because {because}\n\nhint: {hint}")


def main(sailc, files):
    if sailc == "--size":
        for folder in files:
            because = excess(folder)
            if because:
                refuse(folder, because, "leave out a model of DIR or a scheme in benches/gpu/pack")
        return
    for file in files:
        said = subprocess.run([sailc, "inspect", "--json", file], stdout=subprocess.PIPE, text=True, check=True).stdout
        because = lack(json.loads(said))
        if because:
            refuse(file, because, HINT)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
