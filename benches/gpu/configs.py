#!/usr/bin/env python3
"""Decode a dense model with one kernel's config changed at a time: configs.py SAILC SAIL CHECKPOINT RECORD SCHEME…

For each scheme, the kernels of few rows that `sailc tune` lists for `sm_90` get every config of TRIED that fits them, by a
lock. Files hold code alone and are compiled beside each other; without an assembler the driver's is warmed first. Each try
is a line of RECORD; the fastest are printed last. CHECKPOINT needs `config.json` and `tokenizer.json`.
"""
import datetime
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BENCH = ["--tiles", "0", "--prefill", "2048"]
TRIED = {
    "attention": [f"blocks={b} warps={w}" for b, w in [(8, 4), (8, 8), (16, 4), (16, 8), (32, 4), (32, 8), (64, 2), (64, 4)]],
    "rows": [
        f"warps={w} runs={r} share={s} keeps={k}"
        for w, r, s, k in [
            (8, 1, 1, 1), (8, 1, 2, 1), (8, 2, 1, 1), (8, 2, 2, 1), (8, 1, 1, 0), (8, 1, 2, 0),
            (4, 1, 2, 1), (4, 1, 4, 1), (4, 2, 2, 1), (4, 2, 4, 1), (4, 1, 4, 0),
        ]
    ],
}


def words(line):
    """Target, kernel and config of a lock's line; None of another."""
    parts = line.split(" ", 2)
    return parts if parts[0] == "sm_90" and len(parts) == 3 else None


def locks(lines):
    """The lock as it is, then with one kernel's config changed: kernel, config, lines."""
    yield "", "", lines
    for at, line in enumerate(lines):
        parts = words(line)
        if parts is None or not parts[1].endswith(".most8"):
            continue
        way = "attention" if ".alone." in parts[1] else "rows" if ".rows." in parts[1] else None
        for config in TRIED.get(way, []):
            if config != parts[2]:
                yield parts[1], config, [*lines[:at], " ".join([*parts[:2], config]), *lines[at + 1 :]]


def main(sailc, sail, checkpoint, record, *schemes):
    about = ["--target", "sm_90", "--weights", "random:7"]
    folder = Path(tempfile.mkdtemp())

    def make(number, scheme, lines):
        lock, file = folder / f"{number}.lock", folder / f"{number}.sail"
        lock.write_text("\n".join(lines) + "\n")
        command = [sailc, "compile", checkpoint, *about, "--quant", scheme, "--code-only", "--lock", lock, "-o", file]
        return file if subprocess.run(command, capture_output=True).returncode == 0 else None

    def bench(file, decode, repeat):
        command = [sail, "bench", file, "--json", *BENCH, "--decode", decode, "--repeat", repeat]
        document = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        return document["device"], next(run["rate"] for run in document["runs"] if "decode" in run["name"])

    for scheme in schemes:
        own = folder / scheme
        tune = [sailc, "tune", checkpoint, *about, "--quant", scheme, "--lock", own, "--db", folder / "measurements"]
        subprocess.run(tune, check=True, capture_output=True)
        tries = list(locks(own.read_text().splitlines()))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            files = list(pool.map(lambda at: make(f"{scheme}-{at[0]}", scheme, at[1][2]), enumerate(tries)))
        fits = [(kernel, config, file) for (kernel, config, _), file in zip(tries, files) if file]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda one: bench(one[2], "2", "1"), fits))
        rates = []
        for kernel, config, file in fits:
            device, rate = bench(file, "64", "3")
            rates.append((rate["median"], kernel, config))
            line = {
                "date": datetime.date.today().isoformat(), "gpu": device, "model": f"{Path(checkpoint).name} {scheme}",
                "command": " ".join(["sail bench", *BENCH, "--decode 64 --repeat 3"]),
                "kernel": kernel, "config": config, "tokens_per_second": rate,
            }
            with open(record, "a") as out:
                out.write(json.dumps(line) + "\n")
        for rate, kernel, config in sorted(rates, reverse=True)[:10]:
            print(f"{scheme} {rate:.1f} {rate / rates[0][0]:.3f} {kernel} {config}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
