"""Trains the checkpoint: python train.py STATE_FOLDER [--start FOLDER] (--pictures N | --until HH:MM) [--device cuda]

Resumes from STATE_FOLDER/state.pt when it is there. The matrices follow Muon, all else AdamW; the published weights are a
moving average. The rate is constant for the first half of the way and falls as a cosine to nothing in the second.

A crew of single-threaded processes shares the weights: each draws its own part of a batch, then owns a part of the update.
On a busy machine that wastes far less than threads that wait for one another after every product.
"""
import argparse
import datetime
import math
import os
import time
from pathlib import Path

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F

import model as net
from batches import Packer, pixels_of

HERE = Path(__file__).resolve().parent.parent
# Not made orthogonal although they are matrices: tables, the first layer and the small router.
PLAIN = ("embed", "head", "places", "patch_proj", "router")
MOMENTUM, BETAS, DECAY = 0.95, (0.9, 0.98), 0.02


def tensors(batch, device):
    out = {n: torch.from_numpy(a) for n, a in batch.items() if n != "tiles"}
    out["pixels"] = torch.from_numpy(pixels_of(batch["tiles"]))
    return {n: t.to(device) for n, t in out.items()}


class Board:
    """What the crew shares: flat f32 buffers over all weights, and a few numbers."""

    FLAT = ("weights", "mean", "first", "second")

    def __init__(self, size, crew, device):
        flat = {n: torch.zeros(size, device=device) for n in self.FLAT}
        self.grads = torch.zeros(crew, size, device=device)
        # norms: squared gradient norm per member; tally: step, pictures, way, running loss; losses: last per member.
        self.norms, self.losses, self.tally = torch.zeros(crew), torch.zeros(crew), torch.zeros(4, dtype=torch.float64)
        for n, t in flat.items():
            setattr(self, n, t)
        if device == "cpu":
            for t in (*flat.values(), self.grads, self.norms, self.losses, self.tally):
                t.share_memory_()


def orthogonal(m):
    """The nearest semi-orthogonal matrices to m [..., r, c], by five Newton-Schulz steps in bf16."""
    tall = m.shape[-2] > m.shape[-1]
    x = (m.mT if tall else m).flatten(0, -3)
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(5):
        a = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.mT if tall else x).reshape(m.shape).float()


class Member:
    """One process of the crew."""

    def __init__(self, args, rank, board, barrier):
        self.args, self.rank, self.board, self.barrier = args, rank, board, barrier
        torch.set_num_threads(args.threads)
        self.config = net.config_of(HERE)
        self.packer = Packer(HERE / "tokenizer.json", self.config)
        self.model = net.SailVl2(self.config).to(args.device)
        self.spans = hang(self.model, board.weights)
        shapes = {}
        for name, (a, b, shape) in self.spans.items():
            plain = len(shape) < 2 or name.split(".")[-1] in PLAIN
            shapes.setdefault(None if plain else shape, []).append((a, b))
        self.mine = {shape: spans[rank::args.crew] for shape, spans in shapes.items()}
        if args.compile:
            net.compile_parts()

    def learn(self, step):
        """Gradients of this member's part of batch `step`, onto the board."""
        a = self.args
        lesson = self.packer.training_batch(a.seed, step * a.crew + self.rank, a.batch // a.crew)
        batch = tensors(lesson, a.device)
        logits, balance = self.model(batch, self.packer.context)
        wanted = batch["labels"] >= 0
        each = F.cross_entropy(logits, batch["labels"][wanted], reduction="none")
        weight = batch["weights"][wanted]
        loss = (each * weight).sum() / weight.sum()
        (loss + 0.01 * balance).backward()
        for name, p in self.model.named_parameters():
            start, end, _ = self.spans[name]
            self.board.grads[self.rank, start:end] = p.grad.flatten()
            p.grad = None
        self.board.losses[self.rank] = loss.item()
        return 2 * len(lesson["ids"])

    @torch.no_grad()
    def update(self, step, factor):
        """The optimizer's step on this member's weights."""
        board, a = self.board, self.args
        grads = {s: [board.grads[:, x:y].mean(0) for x, y in spans] for s, spans in self.mine.items()}
        board.norms[self.rank] = sum(float(g.square().sum()) for gs in grads.values() for g in gs)
        self.barrier.wait()
        clip = min(1.0, 1.0 / (float(board.norms.sum()) ** 0.5 + 1e-6))
        for shape, spans in self.mine.items():
            move = self.muon(shape, spans, grads[shape], clip, a.rate * factor) if shape else None
            for k, (x, y) in enumerate(spans):
                if shape:
                    board.weights[x:y].mul_(1 - a.rate * factor * DECAY).sub_(move[k].flatten())
                else:
                    self.adam(x, y, grads[shape][k] * clip, step, a.adam_rate * factor)
                keep = min(a.average, (step + 1) / (step + 10))
                board.mean[x:y].lerp_(board.weights[x:y], 1 - keep)
        self.barrier.wait()

    def muon(self, shape, spans, grads, clip, rate):
        """Momentum made orthogonal, all matrices of one shape together (Jordan 2024; scale after Liu 2025)."""
        for (x, y), g in zip(spans, grads):
            g.mul_(clip)
            self.board.first[x:y].lerp_(g, 1 - MOMENTUM)
        ahead = [g.lerp(self.board.first[x:y], MOMENTUM).view(shape) for (x, y), g in zip(spans, grads)]
        return orthogonal(torch.stack(ahead)) * (rate * 0.2 * max(shape[-2:]) ** 0.5) if ahead else []

    def adam(self, x, y, grad, step, rate):
        first, second = self.board.first[x:y], self.board.second[x:y]
        first.lerp_(grad, 1 - BETAS[0])
        second.lerp_(grad.square(), 1 - BETAS[1])
        up, down = first / (1 - BETAS[0] ** (step + 1)), second / (1 - BETAS[1] ** (step + 1))
        self.board.weights[x:y].addcdiv_(up, down.sqrt().add_(1e-8), value=-rate)

    def run(self):
        a, tally, began, mark = self.args, self.board.tally, time.time(), (time.time(), 0.0)
        begin, kept = float(tally[2]), time.time()
        while tally[2] < 1:
            while a.pause_file and Path(a.pause_file).exists():
                time.sleep(1)
            step, way = int(tally[0]), float(tally[2])
            pictures = self.learn(step)
            self.barrier.wait()
            fall = min(1.0, max(0.0, (way - 0.5) / 0.5))
            self.update(step, min(1.0, (step + 1) / 100) * (0.01 + 0.495 * (1 + math.cos(math.pi * fall))))
            if self.rank == 0:
                loss = float(self.board.losses.mean())
                tally[3] = loss if step == 0 else 0.98 * tally[3] + 0.02 * loss
                tally[0], tally[1] = step + 1, tally[1] + pictures * a.crew
                spent = (time.time() - began) / max(1.0, a.end - began)
                tally[2] = tally[1] / a.pictures if a.pictures else begin + (1 - begin) * spent
                mark = self.report(mark)
                if time.time() - kept > a.keep_every:
                    self.keep()
                    kept = time.time()
            self.barrier.wait()
        if self.rank == 0:
            self.keep()

    def report(self, mark):
        step, pictures, way, loss = self.board.tally.tolist()
        if step % 20:
            return mark
        rate = (pictures - mark[1]) / (time.time() - mark[0]) if mark[1] else 0.0
        print(f"{time.strftime('%H:%M:%S')} step {step:.0f} pictures {pictures:.0f} loss {loss:.4f} {rate:.1f} pictures/s way {way:.3f}", flush=True)
        return time.time(), pictures

    def keep(self):
        """Writes state.pt and the averaged weights, each whole or not at all."""
        folder = Path(self.args.state)
        state = {n: getattr(self.board, n).cpu().clone() for n in Board.FLAT} | {"tally": self.board.tally.clone()}
        torch.save(state, folder / "state.tmp")
        os.replace(folder / "state.tmp", folder / "state.pt")
        averaged = net.SailVl2(self.config)
        hang(averaged, state["mean"])
        net.publish(averaged, folder / "model.tmp")
        os.replace(folder / "model.tmp", folder / "model.safetensors")


def hang(model, flat):
    """Makes the model's parameters views of one flat buffer; -> {name: (start, end, shape)}"""
    spans, at = {}, 0
    for name, p in model.named_parameters():
        spans[name] = (at, at + p.numel(), tuple(p.shape))
        p.data = flat[at:at + p.numel()].view(p.shape)
        at += p.numel()
    assert at == len(flat), "the buffer holds exactly the parameters"
    return spans


def prepare(args):
    """The board as the run begins: random or adopted weights, or the kept state."""
    torch.manual_seed(args.seed)
    model = net.SailVl2(net.config_of(HERE))
    if args.start:
        net.adopt(model, args.start)
    board = Board(sum(p.numel() for p in model.parameters()), args.crew, args.device)
    state = Path(args.state) / "state.pt"
    if state.exists():
        kept = torch.load(state, weights_only=True)
        for n in (*Board.FLAT, "tally"):
            getattr(board, n).copy_(kept[n])
    else:
        state.parent.mkdir(parents=True, exist_ok=True)
        board.weights.copy_(torch.cat([p.detach().flatten() for p in model.parameters()]))
        board.mean.copy_(board.weights)
    return board


def member(rank, args, board, barrier):
    Member(args, rank, board, barrier).run()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("state", help="folder for state.pt and model.safetensors")
    p.add_argument("--start", help="folder of published weights to begin from (default: at random)")
    p.add_argument("--pictures", type=int, help="length of the run; repeats exactly")
    p.add_argument("--until", help="wall-clock end of the run, HH:MM, instead of --pictures")
    p.add_argument("--device", default="cpu")
    p.add_argument("--crew", type=int, help="processes (default: 2 on a CPU, 1 on a GPU)")
    p.add_argument("--threads", type=int, default=1, help="threads of each process")
    p.add_argument("--batch", type=int, default=64, help="tiles per step")
    p.add_argument("--rate", type=float, default=2.5e-3)
    p.add_argument("--adam-rate", type=float, default=1.0e-3)
    p.add_argument("--average", type=float, default=0.995)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--keep-every", type=float, default=120, help="seconds between two savings")
    p.add_argument("--pause-file", help="sleep while this file exists")
    p.add_argument("--compile", action="store_true", help="let torch.compile fuse the element-wise parts")
    a = p.parse_args()
    a.crew, a.end = a.crew or (2 if a.device == "cpu" else 1), 0.0
    if bool(a.pictures) == bool(a.until):
        p.error("give either --pictures or --until")
    if a.device != "cpu" and a.crew != 1:
        p.error("a crew of several needs --device cpu")
    if a.until:
        now, (hour, minute) = datetime.datetime.now(), map(int, a.until.split(":"))
        end = now.replace(hour=hour, minute=minute, second=0)
        a.end = (end if end > now else end + datetime.timedelta(days=1)).timestamp()
    board, barrier = prepare(a), mp.get_context("spawn").Barrier(a.crew)
    if a.crew == 1:
        member(0, a, board, barrier)
    else:
        # spawn ends all members when one fails.
        mp.spawn(member, (a, board, barrier), nprocs=a.crew)


if __name__ == "__main__":
    main()
