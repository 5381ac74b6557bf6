"""Tests of how recorded launches are summed up: python3 -m unittest discover benches/gpu"""
import json
import unittest

import cases

HEAD = {"gpu": "A GPU", "cases": 4}
EQUAL = {"case": "00000", "family": "add", "kernel": "add.k sm_90", "found": "equal"}
NEAR = {"case": "00001", "family": "attention", "kernel": "attention.k sm_90", "found": "near", "values": 3, "most_steps": 7,
        "most_counted": 1.5, "steps": {"1": 2, "8": 1}}
FAILED = {"case": "00002", "family": "attention", "kernel": "attention.k sm_80", "found": "failed", "because": "argument 4: value 7"}
ELSEWHERE = {"case": "00003", "family": "mul", "kernel": "mul.k sm_90", "found": "elsewhere"}
NAMES = ["00000", "00001", "00002", "00003"]


def text(*lines):
    return "".join(json.dumps(line) + "\n" for line in lines)


class Cases(unittest.TestCase):
    def test_families_have_how_many_values_differ_and_by_how_many_steps(self):
        other = {**NEAR, "case": "00002", "values": 5, "most_steps": 2, "most_counted": 2.0, "steps": {"1": 4, "2": 1}}
        figures = cases.summed(text(HEAD, EQUAL, NEAR, other, ELSEWHERE))
        self.assertEqual([figures[key] for key in ("cases", "done", "passed", "elsewhere")], [4, 4, 3, 1])
        self.assertEqual(figures["families"]["attention"], {
            "cases": 2, "differing": 2, "values": 8, "most_steps": 7, "most_counted": 2.0, "steps": {"1": 6, "8": 1, "2": 1}})
        self.assertEqual(figures["families"]["add"]["differing"], 0)
        self.assertNotIn("mul", figures["families"])
        self.assertIsNone(cases.verdict(figures, NAMES, None))

    def test_a_failure_is_named(self):
        figures = cases.summed(text(HEAD, EQUAL, NEAR, FAILED, ELSEWHERE))
        told = cases.verdict(figures, NAMES, None)
        self.assertEqual(told, "1 of 4 cases, first: 00002, attention.k sm_80: argument 4: value 7")

    def test_of_one_that_was_cut_off_what_was_done_is_kept(self):
        cut = text(HEAD, EQUAL, NEAR) + '{"case": "000'
        figures = cases.summed(cut)
        self.assertEqual([figures[key] for key in ("cases", "done", "passed")], [4, 2, 2])
        told = cases.verdict(figures, NAMES, "took more than 9 s")
        self.assertEqual(told, "2 of 4 cases were carried out, the next is 00002: took more than 9 s")
        self.assertIn("1 of 4 cases, first: 00002", cases.verdict(cases.summed(text(HEAD, EQUAL, NEAR, FAILED)), NAMES, "exit 1"))

    def test_nothing_proves_nothing(self):
        self.assertIsNone(cases.summed(""))
        self.assertEqual(cases.verdict(None, NAMES, "exit 1: no GPU"), "exit 1: no GPU")
        self.assertEqual(cases.verdict(None, NAMES, None), "nothing was said of any case")
        figures = cases.summed(text({"gpu": "A GPU", "cases": 1}, ELSEWHERE))
        self.assertEqual(cases.verdict(figures, NAMES[:1], None), "no case was compared with anything")


if __name__ == "__main__":
    unittest.main()
