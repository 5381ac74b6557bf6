import unittest

import configs

LOCK = """# Configs
sailc.lock 1 space 0
sm_90 attention.bf16.h16.g8.e128.alone.most8 blocks=16 warps=8
sm_90 attention.bf16.h16.g8.e128.wgmma.most4096 parts=1
sm_90 linear.int8.tokens.n2048.k2048.residual.rows.most8 warps=8 runs=1 share=1 keeps=1""".splitlines()


class Locks(unittest.TestCase):
    def test_one_line_differs_and_only_of_few_rows(self):
        made = list(configs.locks(LOCK))
        self.assertEqual(made[0], ("", "", LOCK))
        self.assertEqual(len(made), 1 + len(configs.TRIED["attention"]) - 1 + len(configs.TRIED["rows"]) - 1)
        for kernel, config, lines in made[1:]:
            changed = [new for old, new in zip(LOCK, lines, strict=True) if old != new]
            self.assertEqual(changed, [f"sm_90 {kernel} {config}"])
            self.assertTrue(kernel.endswith(".most8"))


if __name__ == "__main__":
    unittest.main()
