"""What PyTorch reaches on the same shapes: peers.py ITEM [--small], JSON; each line has what those before have.

Items: rates (copy and matrix units), products, attention, vision, eager, graph, compiled. Weights are random. Without
PyTorch or a GPU the line says what is missing.
"""
import json
import math
import sys

SMALL = "--small" in sys.argv
WARM, TIMES = (1, 2) if SMALL else (3, 11)
# Qwen3-1.7B, the decoder of the 2B, and its vision tower.
DECODER = {"width": 2048, "heads": 16, "kv_heads": 8, "head": 128, "ff": 6144, "layers": 28, "vocabulary": 151936}
TOWER = {"width": 1536, "heads": 12, "kv_heads": 12, "head": 128, "ff": 4096, "layers": 24, "vocabulary": 0}
DEPTH = 2048
if SMALL:
    DECODER.update(layers=2, width=256, heads=2, kv_heads=1, ff=512, vocabulary=1000)
    TOWER.update(layers=2, width=256, heads=2, kv_heads=2, ff=512)
    DEPTH = 64

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None


def middle(values):
    values = sorted(values)
    return {"median": values[len(values) // 2], "min": values[0], "max": values[-1]}


class Figures(dict):
    """Prints all it has with each new one: what is cut off is only what comes after."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        print(json.dumps({**self, "torch": torch.__version__}), flush=True)


def timed(work, times=TIMES):
    """Seconds of one `work`, by events of the GPU, the host being ahead."""
    for _ in range(WARM):
        work()
    torch.cuda.synchronize()
    seconds = []
    for _ in range(times):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return middle(seconds)


def recorded(work):
    """`work` as a CUDA graph, after it ran on a stream of its own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def rates():
    side = 512 if SMALL else 8192
    count = (1 << 20) if SMALL else (1 << 30)
    a, b = (torch.empty(count, dtype=torch.uint8, device="cuda") for _ in range(2))
    copy = timed(lambda: b.copy_(a))
    x, y = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    floats = timed(lambda: torch.mm(x, y.t()))
    p, q = (torch.randint(-127, 128, (side, side), device="cuda", dtype=torch.int8) for _ in range(2))
    codes = timed(lambda: torch._int_mm(p, q.t()))
    work = 2 * side**3
    return {"copy_bytes": 2 * count / copy["min"], "bf16_operations": work / floats["min"], "int8_operations": work / codes["min"], "side": side}


def products():
    """Seconds of one product, weights of enough copies in turn that no cache holds them, as a graph."""
    width, ff, wide = DECODER["width"], DECODER["ff"], (DECODER["heads"] + 2 * DECODER["kv_heads"]) * DECODER["head"]
    shapes = {"qkv": (wide, width), "o": (width, DECODER["heads"] * DECODER["head"]), "gate_up": (2 * ff, width), "down": (width, ff), "head": (DECODER["vocabulary"], width)}
    figures = Figures()
    for name, (n, k) in shapes.items():
        copies = max(2, (1 if SMALL else 256 << 20) // (2 * n * k))
        weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
        for rows in (1, 8, 64, 512):
            if name == "head" and rows > 64:
                continue
            x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
            found = timed(recorded(lambda: [F.linear(x, weight) for weight in weights]))
            figures[f"{name} {rows}x{n}x{k}"] = {key: value / copies for key, value in found.items()}
        del weights
    width, ff = TOWER["width"], TOWER["ff"]
    for name, (n, k) in {"tile qkv": (3 * width, width), "tile gate_up": (2 * ff, width), "tile down": (width, ff)}.items():
        x, weight = torch.randn(1024, k, device="cuda", dtype=torch.bfloat16), torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
        figures[f"{name} 1024x{n}x{k}"] = timed(recorded(lambda: F.linear(x, weight)))
    return figures


def attention():
    """Seconds of scaled_dot_product_attention: a chunk of a prompt, tokens at a depth, a tile."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    heads, kv, head = DECODER["heads"], DECODER["kv_heads"], DECODER["head"]
    draw = lambda *shape: torch.randn(*shape, device="cuda", dtype=torch.bfloat16)
    cases = {
        "prefill 512 at 0": (draw(1, heads, 512, head), draw(1, heads, 512, head), True),
        "prefill 2048 at 0": (draw(1, heads, DEPTH, head), draw(1, heads, DEPTH, head), True),
        "decode 1": (draw(1, heads, 1, head), draw(1, kv, DEPTH, head), False),
        "decode 8": (draw(8, heads, 1, head), draw(8, kv, DEPTH, head), False),
        "decode 64": (draw(64, heads, 1, head), draw(64, kv, DEPTH, head), False),
        "tile": (draw(1, TOWER["heads"], 1024, 128), draw(1, TOWER["heads"], 1024, 128), False),
    }
    figures = Figures()
    for name, (q, k, causal) in cases.items():
        v = torch.randn_like(k)
        grouped = {"enable_gqa": True} if k.shape[1] != q.shape[1] else {}
        for backend in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"):
            try:
                with sdpa_kernel(getattr(SDPBackend, backend)):
                    call = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, **grouped)
                    figures[f"{name} {backend.split('_')[0].lower()}"] = timed(recorded(call))
            except (RuntimeError, AttributeError) as error:
                figures[f"{name} {backend.split('_')[0].lower()}"] = {"refused": str(error).splitlines()[0][:120]}
                torch.cuda.synchronize()
    return figures


def model():
    """The blocks of both towers, with a cache of fixed size where there is one."""
    from torch import nn

    def norm(x, weight, eps=1e-6):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight

    def turned(x, cos, sin):
        low, high = x.chunk(2, -1)
        return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)

    class Block(nn.Module):
        def __init__(self, s, batch, positions):
            super().__init__()
            self.s = s
            wide = (s["heads"] + 2 * s["kv_heads"]) * s["head"]
            new = lambda n, k: nn.Parameter(torch.randn(n, k, device="cuda", dtype=torch.bfloat16) / math.sqrt(k), False)
            ones = lambda n: nn.Parameter(torch.ones(n, device="cuda", dtype=torch.bfloat16), False)
            self.qkv, self.o = new(wide, s["width"]), new(s["width"], s["heads"] * s["head"])
            self.gate_up, self.down = new(2 * s["ff"], s["width"]), new(s["width"], s["ff"])
            self.norms = nn.ParameterList([ones(s["width"]), ones(s["width"]), ones(s["head"]), ones(s["head"])])
            if positions:
                shape = (batch, s["kv_heads"], positions, s["head"])
                self.register_buffer("keys", torch.zeros(shape, device="cuda", dtype=torch.bfloat16))
                self.register_buffer("values", torch.zeros(shape, device="cuda", dtype=torch.bfloat16))

        def forward(self, x, at, turn, mask, causal):
            s, (b, t, _) = self.s, x.shape
            h = F.linear(norm(x, self.norms[0]), self.qkv)
            q, k, v = h.view(b, t, -1, s["head"]).transpose(1, 2).split((s["heads"], s["kv_heads"], s["kv_heads"]), 1)
            if turn is not None:
                q, k = turned(norm(q, self.norms[2]), *turn), turned(norm(k, self.norms[3]), *turn)
                self.keys.index_copy_(2, at, k)
                self.values.index_copy_(2, at, v)
                if not causal:
                    k, v = self.keys, self.values
            grouped = {"enable_gqa": True} if s["heads"] != s["kv_heads"] else {}
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, **grouped)
            x = x + F.linear(y.transpose(1, 2).reshape(b, t, -1), self.o)
            gate, up = F.linear(norm(x, self.norms[1]), self.gate_up).chunk(2, -1)
            return x + F.linear(F.silu(gate) * up, self.down)

    class Tower(nn.Module):
        """With a vocabulary a decoder over a cache, else blocks that see all rows."""

        def __init__(self, s, batch, positions):
            super().__init__()
            self.blocks = nn.ModuleList([Block(s, batch, positions) for _ in range(s["layers"])])
            self.table = None
            if s["vocabulary"]:
                draw = torch.randn(s["vocabulary"], s["width"], device="cuda", dtype=torch.bfloat16)
                self.table = nn.Parameter(draw * 0.02, False)
                turns = torch.outer(torch.arange(positions), 1e6 ** (-torch.arange(0, s["head"], 2) / s["head"]))
                self.register_buffer("cos", turns.cos().to("cuda", torch.bfloat16))
                self.register_buffer("sin", turns.sin().to("cuda", torch.bfloat16))
                self.register_buffer("numbers", torch.arange(positions, device="cuda"))

        def forward(self, x, at, causal):
            if self.table is None:
                for block in self.blocks:
                    x = block(x, None, None, None, False)
                return x
            x = F.embedding(x, self.table)
            turn = (self.cos[at], self.sin[at])
            mask = None if causal else (self.numbers[None, :] <= at[:, None])[None, None]
            for block in self.blocks:
                x = block(x, at, turn, mask, causal)
            return F.linear(norm(x[:, -1], torch.ones_like(x[0, 0])), self.table)

    return Tower


def vision():
    tower = model()(TOWER, 1, 0)
    figures = Figures()
    for tiles in (1, 8):
        x = torch.randn(tiles, 1024, TOWER["width"], device="cuda", dtype=torch.bfloat16)
        figures[f"{tiles} tiles eager"] = timed(lambda: tower(x, None, False))
        figures[f"{tiles} tiles graph"] = timed(recorded(lambda: tower(x, None, False)))
    return figures


def decoder(way):
    """Seconds of one step of all conversations, and of a prompt at once, in `way`."""
    figures = Figures()
    for batch in (1, 8) if SMALL else (1, 8, 64):
        tower = model()(DECODER, batch, DEPTH + 64)
        call = tower
        if way == "compiled":
            call = torch.compile(tower, mode="reduce-overhead", fullgraph=True)
        ids = torch.zeros(batch, 1, dtype=torch.long, device="cuda")
        at = torch.tensor([DEPTH], device="cuda")
        step = lambda: call(ids, at, False)
        figures[f"decode {batch} at {DEPTH}"] = timed(recorded(step) if way == "graph" else step)
        if batch == 1 and way != "compiled":
            for tokens in (512, DEPTH):
                prompt = torch.zeros(1, min(tokens, DEPTH), dtype=torch.long, device="cuda")
                places = torch.arange(prompt.shape[1], device="cuda")
                read = lambda: call(prompt, places, True)
                figures[f"prefill {prompt.shape[1]}"] = timed(recorded(read) if way == "graph" else read, 5)
        del tower, call
        torch.cuda.empty_cache()
    return figures


ITEMS = {"rates": rates, "products": products, "attention": attention, "vision": vision}
ITEMS |= {way: lambda way=way: decoder(way) for way in ("eager", "graph", "compiled")}


def main():
    item = ITEMS[sys.argv[1]]
    if torch is None or not torch.cuda.is_available():
        print(json.dumps({"missing": "PyTorch" if torch is None else "a GPU that PyTorch sees"}))
        return
    with torch.inference_mode(sys.argv[1] != "compiled"), torch.no_grad():
        figures = item()
    print(json.dumps({**figures, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
