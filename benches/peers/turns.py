"""Decode in short turns with the peers: python turns.py FOLDER --sail SAIL --dense int8=2b-int8.sail ... [--record]

All columns are open at once and decode a few tokens each, one column after the other, forth and back. The state of
memory moves within seconds: what two columns do within one such second can be compared, and many such pairs say how
they stand to each other more exactly than processes that run for themselves. Prints a table for each artifact;
--record appends a line for each to peers.jsonl.
"""
import json
import subprocess
import sys
import tempfile

import quiet
import run
import table


class Player:
    """A process that decodes at each line it is given."""

    def __init__(self, command):
        self.command = list(map(str, command))
        self.words = tempfile.TemporaryFile("w+")  # pages of them when peers open a model
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=self.words, text=True, bufsize=1)

    def turn(self):
        """Seconds of its next turn."""
        self.process.stdin.write("\n")
        answer = self.process.stdout.readline()
        if not answer:
            self.words.seek(0)
            raise SystemExit(f"{' '.join(self.command)}\nended in its turn with {self.process.wait()}:\n{self.words.read()}")
        return float(answer)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def command(a, workload, column):
    sizes = ["--prefill", a.prefill, "--decode", a.decode, "--threads", a.threads, "--turns"]
    if column == table.SAIL:
        return [a.sail, "bench", workload.artifact, *sizes]
    python = a.folder / f"venv-{run.PYTHONS[column]}" / "bin" / "python"
    return [python, run.HERE / "contender.py", column, workload.model, *sizes]


def play(a, workload):
    """Seconds of every turn by column, and others' share of the processors while turns were taken."""
    columns = [column for column in workload.columns if column != "openvino"]  # it answers whole prompts only
    players = {column: Player(command(a, workload, column)) for column in columns}
    seconds = {column: [] for column in columns}
    for player in players.values():
        player.turn()  # the first opens the file, reads the prompt, and touches all weights
    with quiet.Watch([player.process.pid for player in players.values()]) as watch:
        for number in range(a.turns):
            for column in columns if number % 2 == 0 else reversed(columns):
                seconds[column].append(players[column].turn())
    for player in players.values():
        player.end()
    return seconds, watch.others


def main():
    a = run.arguments(__doc__, decode=8, turns=100)
    for workload in run.workloads(a):
        run.warm([workload.artifact, workload.model])
        quiet.wait()
        seconds, others = play(a, workload)
        print(f"{workload.kind} {workload.scheme}: others took {others:.1%} of the processors", file=sys.stderr)
        if others > a.others:
            raise SystemExit(f"others used more than {a.others:.0%} of the processors: nothing is recorded")
        rates = {column: [a.decode / value for value in of] for column, of in seconds.items()}
        print(table.turns(f"{workload.title()}, {a.turns} turns of {a.decode} tokens at {a.prefill}", rates) + "\n", flush=True)
        if a.record:
            line = {**run.header(a, workload), "others": others, "turns": rates}
            with open(run.RECORD, "a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
