"""Exact answers on held-out scenes: python evaluate.py CHECKPOINT [--scenes 1000] [--seed 12345] [--wrong 20]

A greedy answer is exact when, with the right answer written after the question, the most likely token is the right one at
every place and <|im_end|> after it. One pass per batch thus measures what generating token by token would.
"""
import argparse
import datetime
from collections import defaultdict
from pathlib import Path

import torch

import model as net
import scenes
from batches import Packer, tiles_of
from train import tensors


def load(folder):
    model = net.SailVl2(net.config_of(folder))
    net.adopt(model, folder)
    return model.eval()


@torch.no_grad()
def exam(model, packer, seed, n, device="cpu", batch=32):
    """-> list of (Question, the most likely tokens as text, right)"""
    marks = []
    asked = list(scenes.held_out(seed, n, packer.tile))
    for at in range(0, n, batch):
        part = asked[at:at + batch]
        pictures = [None if p is None else tiles_of(p, packer.tile, packer.limit) for p, _ in part]
        rows = [packer.row([(0 if p is None else len(p), [q])]) for p, (_, q) in zip(pictures, part)]
        lesson = tensors(packer.batch([p for p in pictures if p is not None], rows), device)
        logits, _ = model(lesson, packer.context)
        wanted = lesson["labels"] >= 0
        best, want = logits.argmax(-1), lesson["labels"][wanted]
        for k, (_, question) in enumerate(part):
            mine = wanted.nonzero()[:, 0] == k
            marks.append((question, packer.tok.decode(best[mine].tolist()), bool((best[mine] == want[mine]).all())))
    return marks


def table(marks):
    """Right answers by kind, as lines of Markdown."""
    kinds = defaultdict(list)
    for question, _, right in marks:
        kinds[question.kind].append(right)
    lines = ["| kind of question | exact | of |", "| --- | ---: | ---: |"]
    lines += [f"| {k} | {sum(v) / len(v):.3f} | {len(v)} |" for k, v in sorted(kinds.items())]
    return lines + [f"| all | {sum(r for _, _, r in marks) / len(marks):.3f} | {len(marks)} |"]


@torch.no_grad()
def check_packing(model, packer):
    """A question beside others in a row gets the logits it gets alone; what differs is rounding in other shapes."""
    picture, question = next((p, q) for p, q in scenes.held_out(1, 50, packer.tile) if p is not None)
    tiles = tiles_of(picture, packer.tile, packer.limit)
    others = [scenes.Question("", "How many shapes are there?", "two"), question, scenes.Question("", "What is at the top?", "A red ring.")]
    length = len(packer.ids(question.answer + "<|im_end|>"))
    first = len(packer.ids("two<|im_end|>"))
    alone, _ = model(tensors(packer.batch([tiles], [packer.row([(len(tiles), [question])])]), "cpu"), packer.context)
    beside, _ = model(tensors(packer.batch([tiles], [packer.row([(len(tiles), others)])]), "cpu"), packer.context)
    far = (beside[first:first + length] - alone).norm() / alone.norm()
    assert far < 0.05, f"a packed question's logits lie {far:.3f} from those alone"


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("checkpoint", type=Path)
    p.add_argument("--scenes", type=int, default=1000)
    p.add_argument("--seed", type=int, default=12345)
    p.add_argument("--device", default="cpu")
    p.add_argument("--wrong", type=int, default=0, help="print that many wrong answers")
    a = p.parse_args()
    model, packer = load(a.checkpoint), Packer(a.checkpoint / "tokenizer.json", net.config_of(a.checkpoint))
    check_packing(model, packer)
    marks = exam(model.to(a.device), packer, a.seed, a.scenes, a.device)
    print(f"{datetime.date.today()}, {a.scenes} scenes, seed {a.seed}")
    print("\n".join(table(marks)))
    for question, said, _ in [m for m in marks if not m[2]][:a.wrong]:
        print(f"{question.kind}: {question.text} {question.answer!r}, not {said!r}")


if __name__ == "__main__":
    main()
