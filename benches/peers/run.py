"""Compare `sail bench` with the peers: python run.py FOLDER --sail SAIL --dense int8=2b-int8.sail ... [--record]

FOLDER is what setup.sh and models.py filled. Rounds alternate: each column once, then again. A round in which others
used the processors is refused and repeated. Prints a table for each artifact; --record appends a line for each round.
"""
import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import quiet
import table

HERE = Path(__file__).parent
ROOT = HERE.resolve().parents[1]
RECORD = ROOT / "benches/results/peers.jsonl"
VISION = "vit-huge-bf16"
# The peers' file that stores weights in as many bits, by option and scheme.
FILES = {
    "dense": {"bf16": "qwen3-1.7b-bf16", "int8": "qwen3-1.7b-q8_0", "int4": "qwen3-1.7b-q4_0"},
    "moe": {"int4": "a3b-l6-q4_0"},
}
# Which Python a column has.
PYTHONS = {"llama": "llama", "ik": "ik", "ik-repack": "ik", "openvino": "openvino"}
# OpenVINO reads no mixtures of experts from GGUF, and no bf16.
CANNOT = {("moe", "int4", "openvino"), ("dense", "bf16", "openvino")}


class Refused(Exception):
    """Others used the processors during a round."""


class Workload:
    """One artifact of ours beside the peers' file of the same shape."""

    def __init__(self, a, kind, pair):
        scheme, _, artifact = pair.partition("=")
        if scheme not in FILES[kind] or not artifact:
            raise SystemExit(f"--{kind} takes SCHEME=FILE.sail with {' or '.join(FILES[kind])}, not `{pair}`")
        self.kind, self.scheme, self.artifact = kind, scheme, Path(artifact)
        self.model = a.folder / "gguf" / f"{FILES[kind][scheme]}.gguf"
        self.vision = a.folder / "gguf" / f"{VISION}.gguf" if kind == "dense" else None
        self.columns = [column for column in a.columns if (kind, scheme, column) not in CANNOT]
        for path in [self.artifact, self.model, self.vision]:
            if path and not path.is_file():
                raise SystemExit(f"no file `{path}`; see {HERE / 'README.md'}")

    def files(self, column):
        if column == table.SAIL:
            return [self.artifact]
        return [self.model] + ([self.vision] if column == "llama" and self.vision else [])

    def command(self, a, column):
        sizes = ["--prefill", a.prefill, "--decode", a.decode, "--repeat", a.repeat, "--threads", a.threads]
        if column == table.SAIL:
            return [a.sail, "bench", self.artifact, "--json", "--tiles", 1 if self.vision else 0, *sizes]
        model, *vision = self.files(column)
        python = a.folder / f"venv-{PYTHONS[column]}" / "bin" / "python"
        pictures = ["--vision", *vision] if vision else []
        return [python, HERE / "contender.py", column, model, "--probe", a.folder / "bin/probe", *pictures, *sizes]


    def title(self):
        return f"{self.kind} {self.scheme} ({self.artifact.name} | {self.model.name})"


def workloads(a):
    return [Workload(a, kind, pair) for kind in FILES for pair in getattr(a, kind)]


def warm(paths):
    """Bring files into the page cache: a start is measured from there, for all alike."""
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(16 << 20):
                pass


def one_round(a, workload):
    """Figures, documents and others' shares by column; refused as soon as one column was disturbed."""
    figures, documents, others = {}, {}, {}
    for column in workload.columns:
        warm(workload.files(column))
        if a.others < 1:
            quiet.wait()
        printed, others[column] = quiet.run(workload.command(a, column))
        print(f"    {column}: others took {others[column]:.1%} of the processors", file=sys.stderr)
        if others[column] > a.others:
            raise Refused
        documents[column] = json.loads(printed.splitlines()[-1])
        of = table.of_sail if column == table.SAIL else table.of_peer
        figures[column] = of(documents[column])
    return figures, documents, others


def rounds_of(a, workload):
    """All rounds of one workload, as they are recorded."""
    for number in range(1, a.rounds + 1):
        for attempt in range(1, a.tries + 1):
            print(f"  {workload.kind} {workload.scheme}, round {number}, try {attempt}", file=sys.stderr)
            try:
                figures, documents, others = one_round(a, workload)
                break
            except Refused:
                continue
        else:
            raise Refused(f"others used more than {a.others:.0%} of the processors in all {a.tries} tries of a round")
        yield {
            **header(a, workload),
            "repeat": a.repeat,
            "round": number,
            "figures": figures,
            "others": others,
            "versions": {column: version(a, column, document) for column, document in documents.items()},
        }


def header(a, workload):
    """What every record says of when, where and what."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": said("git", "-C", ROOT, "rev-parse", "--short", "HEAD"),
        "machine": machine(),
        "command": " ".join(map(without_folders, sys.argv)),
        "workload": {"kind": workload.kind, "scheme": workload.scheme, "model": workload.model.stem},
        "sizes": {"prefill": a.prefill, "decode": a.decode, "threads": a.threads},
    }


def without_folders(word):
    """An argument as a record shows it: folders are of one machine."""
    option, equals, path = word.rpartition("=")
    return option + equals + Path(path).name


def said(*command):
    return subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def version(a, column, document):
    if column == table.SAIL:
        return f"{said(a.sail, '--version')}, artifact {document['root']}"
    return document["version"]


def machine():
    """Processor, cores and memory as the system names them."""
    cpu = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines())
    cpu = {key.strip(): value.strip() for key, value in cpu.items()}
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = f"{cpu.get('model name', '?')} (family {cpu.get('cpu family', '?')} model {cpu.get('model', '?')})"
    return f"{os.cpu_count()} cores of {model}, {gigabytes:.0f} GiB"


def arguments(about, decode, turns=None):
    """The command line: of rounds, or of so many turns."""
    columns = [table.SAIL, *PYTHONS]
    p = argparse.ArgumentParser(description=about.splitlines()[0])
    p.add_argument("folder", type=Path, help="what setup.sh and models.py filled")
    p.add_argument("--sail", type=Path, required=True, help="our program, a release build")
    for kind, schemes in FILES.items():
        p.add_argument(f"--{kind}", action="append", default=[], metavar="SCHEME=FILE.sail", help=", ".join(schemes))
    p.add_argument("--columns", default=",".join(columns), help="who is measured, in this order (default: %(default)s)")
    if turns:
        p.add_argument("--turns", type=int, default=turns)
    else:
        p.add_argument("--rounds", type=int, default=5)
        p.add_argument("--repeat", type=int, default=3, help="repetitions in one process; their median is its figure")
        p.add_argument("--tries", type=int, default=5, help="how often a refused round is repeated")
    p.add_argument("--prefill", type=int, default=512)
    p.add_argument("--decode", type=int, default=decode)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--others", type=float, default=0.06, help="share of the processors that others may take; 1 for trials")
    p.add_argument("--record", action="store_true", help=f"append what was found to {RECORD.relative_to(ROOT)}")
    a = p.parse_args()
    a.columns = a.columns.split(",")
    if unknown := set(a.columns) - set(columns):
        p.error(f"no column `{unknown.pop()}`; there are {', '.join(columns)}")
    if a.record and a.others > 0.06:
        p.error("a round that others disturbed is not recorded: leave --others out")
    if not a.dense + a.moe:
        p.error("nothing to compare: give --dense or --moe")
    return a


def main():
    a = arguments(__doc__, decode=64)
    for workload in workloads(a):
        found, refused = [], None
        try:
            for line in rounds_of(a, workload):
                found.append(line["figures"])
                if a.record:
                    with open(RECORD, "a") as file:
                        file.write(json.dumps(line) + "\n")
        except Refused as reason:
            refused = str(reason)
        if found:
            sizes = f"prefill {a.prefill}, decode {a.decode} at {a.prefill}, {a.threads} threads, {len(found)} rounds"
            print(table.table(f"{workload.title()}: {sizes}", workload.columns, found) + "\n", flush=True)
        if refused:
            raise SystemExit(refused)


if __name__ == "__main__":
    main()
