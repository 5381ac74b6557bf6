"""Tests of what is recorded and of when it ends: python3 -m unittest discover benches/gpu"""
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import lzma
import os
import sys
import tarfile
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent


def module():
    """`run`, which is a program without an ending."""
    loader = importlib.machinery.SourceFileLoader("run", str(HERE / "run"))
    made = importlib.util.module_from_spec(importlib.util.spec_from_loader("run", loader))
    loader.exec_module(made)
    return made


run = module()

SAIL = """#!/bin/sh
case $1 in bench) echo '{"runs": [], "start_seconds": 1, "limits": {"operations_origin": "given"}}';; esac
"""
# Says one case of three, then waits, as does what it has started.
HANGS = """#!/bin/sh
echo '{"gpu": "A GPU", "cases": 3}'
echo '{"case": "00000", "family": "add", "kernel": "add sm_90", "found": "equal"}'
sleep 60 &
sleep 60
"""
SMI = """#!/bin/sh
case "$*" in
    *-lms*) while :; do echo 1200; sleep 0.1; echo 1755; done;;
    *) echo 'A GPU, 580.1, 1980, 700.00, 143771';;
esac
"""


class Packed(unittest.TestCase):
    """A folder as `pack` makes it, with programs that only pretend."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "bin").mkdir()
        (self.folder / "made-of").write_text("abc\n2026-01-02\nrelease\n")
        self.packed("sail", SAIL)
        files = self.folder / "files/cases"
        files.mkdir(parents=True)
        for name in ("00000", "00001", "00002"):
            (files / f"{name}.case").touch()
        self.record = self.folder / "gpu.jsonl"
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        self.enterContext(mock.patch.dict(os.environ, PATH=path, SAIL_FAKECUDA="simulated"))

    def packed(self, name, text):
        (self.folder / f"bin/{name}.xz").write_bytes(lzma.compress(text.encode()))

    def carried_out(self, *arguments, started=None):
        """Lines of the record after `run`, and what it took."""
        with tarfile.open(self.folder / "files.tar.xz", "w:xz") as files:
            files.add(self.folder / "files", arcname=".")
        words = ["run", *arguments, "--files", str(self.folder), "--record", str(self.record)]
        before = time.monotonic()
        with mock.patch.object(sys, "argv", words), contextlib.redirect_stdout(io.StringIO()):
            run.main(before if started is None else started)
        lines = self.record.read_text().splitlines() if self.record.is_file() else []
        return [json.loads(line) for line in lines], time.monotonic() - before

    def test_cases_that_were_done_before_the_end_of_a_part_are_recorded(self):
        self.packed("gpucheck", HANGS)
        # What came before the part counts: of its time, six seconds are left.
        lines, took = self.carried_out("conformance", started=time.monotonic() - run.PART_SECONDS + 6)
        self.assertLess(took, 8)
        self.assertEqual([line["what"] for line in lines], ["all"])
        self.assertIn("1 of 3 cases were carried out, the next is 00001: took more than", lines[0]["failed"])
        self.assertEqual(lines[0]["figures"]["families"]["add"]["cases"], 1)

    def test_a_call_for_one_part_has_an_end_within_five_minutes(self):
        self.assertLessEqual(run.PART_SECONDS, 285)

    def test_the_clock_while_something_ran_stands_beside_the_greatest(self):
        (self.folder / "nvidia-smi").write_text(SMI)
        (self.folder / "nvidia-smi").chmod(0o755)
        self.packed("gpucheck", HANGS.replace("sleep 60 &\nsleep 60", "sleep 1") + "exit 1\n")
        lines, _ = self.carried_out("kernels")
        self.assertEqual(lines[0]["clock_max_mhz"], "1980")
        clock = lines[0]["clock_sm_mhz"]
        self.assertEqual([clock["min"], clock["max"]], [1200, 1755])
        self.assertGreaterEqual(clock["times"], 2)

    def test_without_its_program_there_is_no_clock(self):
        with mock.patch.dict(os.environ, PATH=str(self.folder)):
            clocks = run.Clocks()
            clocks.close()
        self.assertIsNone(clocks.between(0, time.monotonic()))

    def test_all_schemes_of_the_readme_are_measured_at_all_sizes(self):
        self.assertEqual(set(run.SCHEMES), {"bf16", "int8", "int4", "int8-weight", "fp8"})
        tiles = [int(tiles) for _, _, _, some, _ in run.RUNS for tiles in some.split(",")]
        self.assertEqual(tiles, list(range(1, 12)))
        for sizes in run.RUNS:
            self.assertEqual(run.sizes_of("2B bf16 " + "x".join(map(str, sizes))), sizes)

    def test_schemes_that_are_packed_are_measured_unasked(self):
        for scheme in run.SCHEMES:
            (self.folder / f"files/speed.small.{scheme}.sm_90.sail").touch()
        with mock.patch.object(run, "rates", lambda box: None):
            lines, _ = self.carried_out("speed", "--small")
        self.assertEqual([line["what"] for line in lines], [f"small {scheme} 20x2x2x1,2x1" for scheme in run.SCHEMES])


if __name__ == "__main__":
    unittest.main()
