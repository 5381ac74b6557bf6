#!/usr/bin/env python3
"""The GPU table of the README out of benches/results/gpu.jsonl: table.py [--check] writes it between its markers."""
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "benches/results/gpu.jsonl"
README = ROOT / "README.md"
BEGIN, END = "<!-- gpu table -->", "<!-- end of gpu table -->"
# Of 1 to 11 tiles that are measured.
SHOWN_TILES = ["1", "2", "4", "8", "11"]
NOTHING = "No GPU has been measured with `benches/gpu` yet."


def latest(records):
    """The last record of each part, item and GPU that did not fail: later runs take the place of earlier ones."""
    kept = {}
    for record in records:
        if "failed" not in record and "skipped" not in record:
            kept[record["gpu"], record["part"], record["what"]] = record
    return list(kept.values())


def rows_of_bench(record):
    """(model and scheme, what, cell) of one `sail bench`."""
    model = " ".join(record["what"].split()[:2])
    document = record["document"]
    for run in document["runs"]:
        if not shown(run["name"]):
            continue
        rate, share = run["rate"], run["share"]
        digits = 2 if rate["median"] < 100 else 0
        low, middle, high = (f"{rate[key]:,.{digits}f}" for key in ("min", "median", "max"))
        cell = f"{middle} [{low} .. {high}] {run['unit']}, {share['median']:.0%} of {run['limit']}"
        yield model, run["name"], cell
    yield model, "file to first logits", f"{document['start_seconds']:.2f} s"


def shown(name):
    """Whether the README has a row for a run of `sail bench`; all of them are in the record."""
    kind, number, *_ = name.split()
    return kind != "vision" or number in SHOWN_TILES


def best(what):
    """Whether the README shows a row of PyTorch's: whole work at its fastest; the rest is in the record."""
    return what.endswith(" graph") or what.startswith(("graph", "compiled"))


def order(what):
    """Pictures, prompts, decoding, the rest; by their numbers."""
    kinds = ["vision", "prefill", "decode", "file"]
    kind = next((at for at, kind in enumerate(kinds) if kind in what), len(kinds))
    return kind, [int(word) for word in what.replace(",", "").split() if word.isdigit()], what


def of_gpu(name, records):
    """Markdown for one GPU."""
    cells, models = {}, []
    for record in records:
        if record["part"] == "speed" and "document" in record:
            for model, what, cell in rows_of_bench(record):
                # The first file to first logits is that of the first size; all are alike.
                cells.setdefault((model, what), cell)
                if model not in models:
                    models.append(model)
    dates = sorted({f"{record['date']}, commit {record['commit']}" for record in records})
    lines = [f"{name}, driver {records[0].get('driver', 'unknown')}; {'; '.join(dates)}."]
    rates = [record["figures"] for record in records if record["part"] == "speed" and record["what"] == "rates"]
    origins = {record["document"]["limits"]["operations_origin"] for record in records if "document" in record and record["part"] == "speed"}
    if rates:
        figures = rates[-1]
        lines.append(f"Beside them PyTorch {figures['torch']} copied {figures['copy_bytes'] / 1e9:,.0f} GB/s and multiplied squares of "
                     f"{figures['side']} at {figures['bf16_operations'] / 1e12:,.0f} TOP/s in bf16, {figures['int8_operations'] / 1e12:,.0f} in int8.")
    if "data_sheet" in origins:
        lines.append("Shares of computing are of the data sheet's rate.")
    whats = sorted({what for _, what in cells}, key=order)
    if whats:
        lines += ["", "| | " + " | ".join(models) + " |", "| --- |" + " ---: |" * len(models)]
        lines += [f"| {what} | " + " | ".join(cells.get((model, what), "") for model in models) + " |" for what in whats]
    peers = [(f"{record['what']}: {name}", value) for record in records if record["part"] == "peers"
             for name, value in record["figures"].items() if isinstance(value, dict) and "median" in value]
    peers = [(what, value) for what, value in peers if best(what)]
    if peers:
        lines += ["", "| PyTorch, shapes of the 2B | ms |", "| --- | ---: |"]
        lines += [f"| {what} | {value['median'] * 1e3:.4g} [{value['min'] * 1e3:.4g} .. {value['max'] * 1e3:.4g}] |" for what, value in peers]
    checks = [record for record in records if record["part"] in ("goldens", "kernels", "conformance")]
    if checks:
        lines += ["", f"{len(checks)} checks passed: " + ", ".join(sorted({record["part"] for record in checks})) + "."]
    return "\n".join(lines)


def of_lines(lines):
    """Markdown of a record's lines."""
    records = latest(json.loads(line) for line in lines if line.strip())
    gpus = list(dict.fromkeys(record["gpu"] for record in records))
    return "\n\n".join(of_gpu(gpu, [record for record in records if record["gpu"] == gpu]) for gpu in gpus) or NOTHING


def placed(readme, table):
    """The README with the table between its markers."""
    before, rest = readme.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main():
    lines = RECORD.read_text().splitlines() if RECORD.is_file() else []
    old = README.read_text()
    new = placed(old, of_lines(lines))
    if "--check" in sys.argv:
        raise SystemExit(0 if new == old else "the README's GPU table is not that of benches/results/gpu.jsonl")
    README.write_text(new)


if __name__ == "__main__":
    main()
