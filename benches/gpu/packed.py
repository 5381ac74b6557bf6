"""Refuses artifacts for a GPU that lack machine code: packed.py SAILC FILE …

Their PTX would be assembled by the driver of the GPU that they are opened on, so that seconds of its work would be
measured as time to the first logits.
"""
import json
import subprocess
import sys

HINT = "`cargo ptxas` installs the assembler where sailc looks for it; then pack again"


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


def main(sailc, files):
    for file in files:
        said = subprocess.run([sailc, "inspect", "--json", file], stdout=subprocess.PIPE, text=True, check=True).stdout
        because = lack(json.loads(said))
        if because:
            raise SystemExit(f"error: `{file}` cannot be packed\n  because {because}\n\nhint: {HINT}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
