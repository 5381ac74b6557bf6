"""Tests of what may be packed: python3 -m unittest discover benches/gpu"""
import unittest

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


if __name__ == "__main__":
    unittest.main()
