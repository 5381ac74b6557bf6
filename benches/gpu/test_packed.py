"""Tests of what may be packed: python3 -m unittest discover benches/gpu"""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import packed


def described(cubin, registers):
    kernels = [{"name": f"kernel{at}", "registers": count} for at, count in enumerate(registers)]
    return {"cuda": {"architecture": "sm_90a", "cubin": cubin, "kernels": kernels}}


class Packed(unittest.TestCase):
    def test_machine_code_of_every_kernel_may_be_packed(self):
        self.assertIsNone(packed.lack(described(True, [32, 255])))

    def test_ptx_without_machine_code_is_refused(self):
        self.assertIn("without machine code for sm_90a", packed.lack(described(False, [None, None])))

    def test_a_kernel_without_machine_code_is_named(self):
        self.assertIn("1 of 2 kernels: kernel1", packed.lack(described(True, [32, None])))
        self.assertIn("0 of 0 kernels", packed.lack(described(True, [])))

    def test_what_is_for_no_gpu_is_refused(self):
        self.assertEqual(packed.lack({"target": "x86-64-v3"}), "it is for no GPU")


class Size(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def sized(self, name, size):
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        with open(file, "wb") as out:
            out.truncate(size)

    def test_as_much_as_may_be_is_packed(self):
        self.sized("files.tar.xz", 60)
        self.sized("bin/sail", 40)
        self.assertIsNone(packed.excess(self.folder, 100))

    def test_more_is_refused_and_what_is_large_is_named(self):
        self.sized("files.tar.xz", 60)
        self.sized("bin/sail", 41)
        because = packed.excess(self.folder, 100)
        self.assertEqual(because, "its files take 101 bytes and may take 100: files.tar.xz 60, bin/sail 41")

    def test_the_program_ends_with_a_failure_and_a_sentence(self):
        program = [sys.executable, packed.__file__, "--size", str(self.folder)]
        self.sized("files.tar.xz", packed.MOST_BYTES)
        self.assertEqual(subprocess.run(program).returncode, 0)
        self.sized("more", 1)
        refused = subprocess.run(program, capture_output=True, text=True)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("its files take 60,000,001 bytes and may take 60,000,000: files.tar.xz 60,000,000, more 1", refused.stderr)


if __name__ == "__main__":
    unittest.main()
