"""Tests of the GPU table: python3 -m unittest discover benches/gpu"""
import json
import unittest

import table

GPU = {"gpu": "A GPU", "driver": "1", "date": "2026-01-02", "commit": "abc"}


def bench(what, decode, **rest):
    spread = {"min": decode - 1, "median": decode, "max": decode + 1}
    run = {"name": "decode 64 at 2048", "unit": "tokens/s", "rate": spread, "share": {"median": 0.5}, "limit": "reading"}
    document = {"runs": [run], "start_seconds": 1.5, "limits": {"operations_origin": "data_sheet"}}
    return json.dumps({**GPU, "part": "speed", "what": what, "document": document, **rest})


class Table(unittest.TestCase):
    def test_nothing_is_claimed_of_nothing(self):
        self.assertEqual(table.of_lines([]), table.NOTHING)

    def test_a_later_run_takes_the_place_of_an_earlier_one_and_failures_are_left_out(self):
        failed = json.dumps({**GPU, "part": "speed", "what": "2B bf16 1x1x1x1x1", "failed": "exit 8"})
        text = table.of_lines([bench("2B bf16 1x1x1x1x1", 500), bench("2B bf16 1x1x1x1x1", 700), failed])
        self.assertIn("700 [699 .. 701] tokens/s, 50% of reading", text)
        self.assertNotIn("500", text)
        self.assertIn("of the data sheet", text)

    def test_models_are_columns(self):
        text = table.of_lines([bench("2B bf16 1x1x1x1x1", 500), bench("8B int8 1x1x1x1x1", 70)])
        self.assertIn("| | 2B bf16 | 8B int8 |", text)
        self.assertIn("70.00 [69.00 .. 71.00]", text)

    def test_some_numbers_of_tiles_are_rows_in_their_order(self):
        names = [f"vision {tiles} tile{'s' * (tiles > 1)}" for tiles in range(1, 12)]
        line = json.loads(bench("2B bf16 1x1x1x1x1", 3))
        run = line["document"]["runs"][0]
        line["document"]["runs"] = [run] + [{**run, "name": name} for name in reversed(names)]
        rows = [row.split(" | ")[0] for row in table.of_lines([json.dumps(line)]).splitlines() if row.startswith("| vision")]
        self.assertEqual(rows, [f"| {names[tiles - 1]}" for tiles in (1, 2, 4, 8, 11)])

    def test_the_readme_is_that_of_the_record(self):
        lines = table.RECORD.read_text().splitlines()
        readme = table.README.read_text()
        self.assertEqual(table.placed(readme, table.of_lines(lines)), readme)

    def test_the_readme_keeps_what_is_not_the_table(self):
        readme = f"a\n{table.BEGIN}\nold\n{table.END}\nb\n"
        self.assertEqual(table.placed(readme, "new"), f"a\n{table.BEGIN}\nnew\n{table.END}\nb\n")


if __name__ == "__main__":
    unittest.main()
