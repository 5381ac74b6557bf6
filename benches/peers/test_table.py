"""What needs no peer: python3 -m unittest discover benches/peers"""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import quiet
import table

PREFILL, DECODE, PER_GIGABYTE, READ, TILE, START = table.METRICS


def figures(prefill=100.0, decode=20.0, read=40e9, start=2.0, **more):
    return {"prefill": prefill, "decode": decode, "read": read, "start": start, **more}


class Figures(unittest.TestCase):
    def test_a_peers_figure_is_the_median_of_its_repetitions(self):
        document = {"start": [3.0], "tile": [], "prefill": [9.0, 7.0, 8.0], "decode": [1.0, 3.0, 2.0], "read": [5.0, 4.0, 6.0], "version": "x 1"}
        self.assertEqual(table.of_peer(document), {"start": 3.0, "prefill": 8.0, "decode": 2.0, "read": 5.0})

    def test_ours_are_read_from_the_bench(self):
        def run(name, rate, read):
            return {"name": name, "rate": {"median": rate, "min": 0, "max": 0}, "read_bytes": {"median": read, "min": 0, "max": 0}}

        runs = [run("vision 1 tile", 2100.0, 1e9), run("prefill 512", 284.0, 2e9), run("decode 64 at 512", 18.8, 3e9)]
        document = {"start_seconds": 0.5, "load_seconds": 0.4, "runs": runs}
        self.assertEqual(table.of_sail(document), {"start": 0.5, "tile": 2.1, "prefill": 284.0, "decode": 18.8, "read": 3e9})


class Ratios(unittest.TestCase):
    def test_the_best_peer_of_the_round_counts(self):
        round_ = {"sail": figures(prefill=300.0), "a": figures(prefill=100.0), "b": figures(prefill=150.0)}
        self.assertEqual(table.ratio(PREFILL, round_), 2.0)

    def test_fewer_seconds_are_better(self):
        round_ = {"sail": figures(start=0.5), "a": figures(start=1.0), "b": figures(start=4.0)}
        self.assertEqual(table.ratio(START, round_), 2.0)

    def test_twice_the_memory_is_no_merit(self):
        round_ = {"sail": figures(decode=40.0, read=60e9), "a": figures(decode=20.0, read=30e9)}
        self.assertEqual(table.ratio(DECODE, round_), 2.0)
        self.assertEqual(table.ratio(PER_GIGABYTE, round_), 1.0)

    def test_what_one_side_cannot_do_has_no_ratio(self):
        self.assertIsNone(table.ratio(TILE, {"sail": figures(tile=2.0), "a": figures()}))
        self.assertIsNone(table.ratio(TILE, {"a": figures(tile=2.0)}))


class Text(unittest.TestCase):
    def test_a_spread_is_median_least_and_greatest(self):
        self.assertEqual(table.spread([3.0, 1.0, None, 2.26], 1), "2.3 [1.0 .. 3.0]")
        self.assertEqual(table.spread([None], 1), "–")

    def test_ratios_are_of_rounds_not_of_medians(self):
        # Medians are 300 and 100; no round has a ratio of 3.
        rounds = [{"sail": figures(prefill=ours), "a": figures(prefill=peer)} for ours, peer in ((200.0, 100.0), (300.0, 200.0), (400.0, 50.0))]
        lines = table.table("t", ["sail", "a"], rounds).splitlines()
        self.assertEqual(lines[4], "| prefill, tokens/s | 300.0 [200.0 .. 400.0] | 100.0 [50.0 .. 200.0] | 2.00 [1.50 .. 8.00] |")
        self.assertIn("| readable beside decode, GB/s | 40.0 [40.0 .. 40.0] | 40.0 [40.0 .. 40.0] | – |", lines)


class Turns(unittest.TestCase):
    def test_turns_of_one_cycle_are_compared(self):
        # The machine is three times as fast in the third cycle, for both: ours stays 1.25 times better.
        lines = table.turns("t", {"sail": [10.0, 20.0, 30.0, 20.0], "a": [8.0, 16.0, 24.0, 16.0]}).splitlines()
        self.assertEqual(lines[4:], ["| sail | 20.00 [12.50 .. 27.50] |  |", "| a | 16.00 [10.00 .. 22.00] | 1.250 [1.250 .. 1.250] |"])


class Quiet(unittest.TestCase):
    def test_a_watch_leaves_out_this_process_and_those_it_is_told_of(self):
        spin = "while True: pass"
        child = quiet.subprocess.Popen([sys.executable, "-c", spin])
        with quiet.Watch([child.pid]) as known:
            quiet.time.sleep(0.5)
        with quiet.Watch([]) as unknown:
            quiet.time.sleep(0.5)
        child.kill()
        child.wait()
        self.assertGreater(unknown.others, known.others + 0.5 / quiet.os.cpu_count())


    def test_stolen_time_is_busy_and_guests_count_once(self):
        busy, total = quiet.busy_and_all("cpu  10 20 30 400 50 6 7 8 9 9\n")
        self.assertEqual((busy * quiet.TICKS, total * quiet.TICKS), (81, 531))

    def test_what_the_command_itself_takes_is_not_others(self):
        spin = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\nprint('done')"
        before = quiet.processors()
        printed, others = quiet.run([sys.executable, "-c", spin])
        busy, total = (later - earlier for later, earlier in zip(quiet.processors(), before))
        self.assertEqual(printed, "done\n")
        # All that was busy, less what the command took, within a few ticks of the clocks.
        self.assertLess(others, (busy - 0.4) / total + 0.02)


if __name__ == "__main__":
    unittest.main()
