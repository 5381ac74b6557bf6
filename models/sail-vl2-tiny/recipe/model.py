"""The SAIL-VL2 architecture in plain PyTorch, arranged for training: stacked experts, fused q/k/v and gate/up.

Weights are kept in f32; every product runs in bf16 and the residual stream is bf16, as at inference.
`publish` and `adopt` translate to and from the published tensor names.
"""
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

BF16 = torch.bfloat16


def rms(x, weight, eps):
    f = x.float()
    return (f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def linear(x, weight, bias=None):
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def silu_mul(gate_up):
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def attention(q, k, v, mask):
    """[b, heads, n, h] each. Two plain products: for the short rows here several times faster on a CPU than the fused one."""
    return spread(q @ k.mT, q.shape[-1] ** -0.5, mask) @ v


def spread(scores, scale, mask):
    scores = scores.float() * scale
    return (scores if mask is None else scores + mask).softmax(-1).to(BF16)


def weight(*shape, gain=1.0):
    return nn.Parameter(torch.randn(*shape) * gain * shape[-1] ** -0.5)


def ones(n):
    return nn.Parameter(torch.ones(n))


class VisionBlock(nn.Module):
    def __init__(self, v):
        super().__init__()
        d, m = v["hidden_size"], v["intermediate_size"]
        self.heads, self.eps = v["num_attention_heads"], v["rms_norm_eps"]
        self.norm1, self.norm2 = ones(d), ones(d)
        self.qkv, self.proj = weight(3 * d, d), weight(d, d, gain=0.5)
        self.gate_up, self.down = weight(2 * m, d), weight(d, m, gain=0.5)

    def forward(self, x):
        """x [tiles, patches, width]; attention sees every patch of its tile."""
        n, p, d = x.shape
        q, k, v = linear(rms(x, self.norm1, self.eps), self.qkv).view(n, p, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = attention(q, k, v, None)
        x = x + linear(seen.transpose(1, 2).reshape(n, p, d), self.proj)
        return x + linear(silu_mul(linear(rms(x, self.norm2, self.eps), self.gate_up)), self.down)


class Experts(torch.autograd.Function):
    """Rows grouped by expert, two products each. Written with its own backward: a loop of small autograd nodes is twice as slow.

    Each expert's rows are padded to a multiple of 64, with rows whose share is zero and which are never read back: oneDNN
    keeps the code of a product only by its exact size, and free sizes would make it generate anew each time.
    """

    @staticmethod
    def forward(ctx, x, share, gate_up, down, chosen):
        """x [n, D], share [n, k] f32, gate_up [E, 2I, D], down [E, D, I], chosen [n, k] -> [n, D]"""
        k = share.shape[1]
        source, back, per_row, spans = _group(chosen, share)
        xs = x.index_select(0, source // k)
        wide, ys = xs.new_empty(len(xs), gate_up.shape[1]), torch.empty_like(xs)
        for e, (a, b) in spans:
            torch.mm(xs[a:b], gate_up[e].t(), out=wide[a:b])
        scaled = _act(wide, per_row)
        for e, (a, b) in spans:
            torch.mm(scaled[a:b], down[e].t(), out=ys[a:b])
        ctx.save_for_backward(xs, wide, scaled, per_row, gate_up, down, source, back)
        ctx.spans, ctx.k = spans, k
        return _sum_choices(ys.index_select(0, back), k)

    @staticmethod
    def backward(ctx, grad):
        xs, wide, scaled, per_row, gate_up, down, source, back = ctx.saved_tensors
        dy = grad.contiguous().index_select(0, source // ctx.k)
        d_scaled, d_down = torch.empty_like(scaled), torch.zeros_like(down)
        for e, (a, b) in ctx.spans:
            torch.mm(dy[a:b], down[e], out=d_scaled[a:b])
            torch.mm(dy[a:b].t(), scaled[a:b], out=d_down[e])
        d_share, d_wide = _act_grad(wide, d_scaled, per_row)
        dx, d_gate_up = torch.empty_like(xs), torch.zeros_like(gate_up)
        for e, (a, b) in ctx.spans:
            torch.mm(d_wide[a:b], gate_up[e], out=dx[a:b])
            torch.mm(d_wide[a:b].t(), xs[a:b], out=d_gate_up[e])
        return _sum_choices(dx.index_select(0, back), ctx.k), d_share[back].view(-1, ctx.k), d_gate_up, d_down, None


def _group(chosen, share):
    """-> source choice of every grouped row, where each choice went, share of every row [rows, 1], (expert, span) list"""
    flat = chosen.flatten()
    counts = flat.bincount()
    room = -(-counts // 64) * 64
    starts, first = room.cumsum(0) - room, counts.cumsum(0) - counts
    order = flat.argsort(stable=True)
    slots = torch.arange(len(flat), device=flat.device) + (starts - first)[flat[order]]
    source = flat.new_zeros(int(room.sum())).index_copy_(0, slots, order)
    back = torch.empty_like(order).index_copy_(0, order, slots)
    per_row = share.new_zeros(len(source)).index_copy_(0, slots, share.flatten()[order]).unsqueeze(1)
    return source, back, per_row, [(e, (a, a + n)) for e, (a, n) in enumerate(zip(starts.tolist(), room.tolist())) if n]


def _sum_choices(rows, k):
    return rows.view(-1, k, rows.shape[1]).sum(1)


def _act(wide, per_row):
    gate, up = wide.float().chunk(2, -1)
    return (F.silu(gate) * up * per_row).to(wide.dtype)


def _act_grad(wide, d_scaled, per_row):
    gate, up = wide.float().chunk(2, -1)
    s, d = torch.sigmoid(gate), d_scaled.float()
    d_share = (d * gate * s * up).sum(-1)
    d = d * per_row
    return d_share, torch.cat([d * up * s * (1 + gate * (1 - s)), d * gate * s], -1).to(wide.dtype)


class DecoderLayer(nn.Module):
    def __init__(self, t):
        super().__init__()
        d, h, e, m = t["hidden_size"], t["head_dim"], t["num_experts"], t["moe_intermediate_size"]
        self.q, self.kv, self.h, self.eps, self.k = t["num_attention_heads"], t["num_key_value_heads"], h, t["rms_norm_eps"], t["num_experts_per_tok"]
        self.norm1, self.norm2, self.q_norm, self.k_norm = ones(d), ones(d), ones(h), ones(h)
        self.qkv, self.o = weight((self.q + 2 * self.kv) * h, d), weight(d, self.q * h, gain=0.5)
        self.router = weight(e, d)
        self.gate_up, self.down = weight(e, 2 * m, d), weight(e, d, m, gain=0.5)

    def attend(self, x, cos, sin, mask):
        b, n, d = x.shape
        q, k, v = linear(rms(x, self.norm1, self.eps), self.qkv).view(b, n, -1, self.h).split([self.q, self.kv, self.kv], 2)
        q, k = rotate(rms(q, self.q_norm, self.eps), cos, sin), rotate(rms(k, self.k_norm, self.eps), cos, sin)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        k, v = (t.repeat_interleave(self.q // self.kv, 1) for t in (k, v))
        seen = attention(q, k, v, mask)
        return x + linear(seen.transpose(1, 2).reshape(b, n, -1), self.o)

    def route(self, x):
        """-> normed rows [n, D], shares [n, k] that sum to one, chosen experts [n, k], router probabilities [n, E]"""
        flat = rms(x, self.norm2, self.eps).flatten(0, 1)
        probs = linear(flat, self.router).float().softmax(-1)
        share, chosen = probs.topk(self.k, -1)
        return flat, share / share.sum(-1, keepdim=True), chosen, probs

    def forward(self, x, cos, sin, mask, real):
        """real [b, n]: places that are no padding. -> x, load-balancing loss"""
        x = self.attend(x, cos, sin, mask)
        flat, share, chosen, probs = self.route(x)
        experts = probs.shape[1]
        with torch.no_grad():
            used = chosen[real.flatten()].flatten().bincount(minlength=experts) / real.sum()
        balance = experts * (used * probs[real.flatten()].mean(0)).sum()
        y = Experts.apply(flat, share, self.gate_up.to(BF16), self.down.to(BF16), chosen)
        return x + y.view_as(x), balance


def rotate(x, cos, sin):
    """Rotary embedding over halves. x [b, n, heads, h], cos and sin [b, n, 1, h/2] f32"""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class SailVl2(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        v, t = config["vision_config"], config["llm_config"]
        d, p, hidden = v["hidden_size"], v["patch_size"], t["hidden_size"]
        self.patch, self.side = p, v["image_size"] // p
        self.patch_proj, self.patch_bias = weight(d, 3 * p * p), nn.Parameter(torch.zeros(d))
        self.patch_norm, self.post_norm = ones(d), ones(d)
        self.places = nn.Parameter(torch.randn(self.side**2, d) * 0.02)
        self.blocks = nn.ModuleList(VisionBlock(v) for _ in range(v["num_hidden_layers"]))
        self.ln_weight, self.ln_bias = ones(4 * d), nn.Parameter(torch.zeros(4 * d))
        self.fc1, self.fc1_bias = weight(hidden, 4 * d), nn.Parameter(torch.zeros(hidden))
        self.fc2, self.fc2_bias = weight(hidden, hidden), nn.Parameter(torch.zeros(hidden))
        self.embed = nn.Parameter(torch.randn(t["vocab_size"], hidden) * 0.04)
        self.layers = nn.ModuleList(DecoderLayer(t) for _ in range(t["num_hidden_layers"]))
        self.norm, self.head = ones(hidden), weight(t["vocab_size"], hidden)

    def look(self, pixels):
        """pixels [tiles, 3, S, S] -> image features [tiles, places, hidden]"""
        n, s, p = len(pixels), self.side, self.patch
        v = self.config["vision_config"]
        x = pixels.view(n, 3, s, p, s, p).permute(0, 2, 4, 1, 3, 5).reshape(n, s * s, 3 * p * p).to(BF16)
        x = rms(linear(x, self.patch_proj, self.patch_bias), self.patch_norm, v["rms_norm_eps"]) + self.places.to(BF16)
        for block in self.blocks:
            x = block(x)
        x = rms(x, self.post_norm, v["rms_norm_eps"])
        x = x.view(n, s // 2, 2, s // 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(n, s * s // 4, -1)
        x = F.layer_norm(x.float(), x.shape[-1:], self.ln_weight, self.ln_bias, 1e-5).to(BF16)
        return linear(F.gelu(linear(x, self.fc1, self.fc1_bias)), self.fc2, self.fc2_bias)

    def forward(self, batch, context):
        """batch as Packer makes it, as tensors -> logits of the places that have a label [m, vocab], load-balancing loss"""
        ids, positions, t = batch["ids"], batch["positions"], self.config["llm_config"]
        x = F.embedding(ids, self.embed).to(BF16)
        if len(batch["pixels"]):
            image = (ids == context).unsqueeze(-1).expand_as(x)
            x = x.masked_scatter(image, self.look(batch["pixels"]))
        turn = torch.arange(0, t["head_dim"], 2, device=ids.device) / t["head_dim"]
        angle = (positions.unsqueeze(-1) * t["rope_theta"] ** -turn).unsqueeze(2)
        cos, sin, mask = angle.cos(), angle.sin(), visibility(batch["groups"], batch["branches"])
        real, balance = batch["groups"] >= 0, 0.0
        for layer in self.layers:
            x, uneven = layer(x, cos, sin, mask, real)
            balance = balance + uneven / len(self.layers)
        wanted = x[batch["labels"] >= 0]
        return linear(rms(wanted, self.norm, t["rms_norm_eps"]), self.head).float(), balance


def visibility(groups, branches):
    """Additive mask [b, 1, n, n]: the past of one's own branch, picture and the opening; padding sees itself."""
    n = groups.shape[1]
    past = torch.ones(n, n, dtype=torch.bool, device=groups.device).tril()
    opening = (groups == 0).unsqueeze(1)
    same = groups.unsqueeze(2) == groups.unsqueeze(1)
    kin = (branches == 0).unsqueeze(1) | (branches.unsqueeze(2) == branches.unsqueeze(1))
    seen = past & (opening | same & kin)
    return torch.zeros(seen.shape, dtype=BF16, device=groups.device).masked_fill_(~seen, -math.inf).unsqueeze(1)


def pairs(model):
    """(published name, tensor or view of the model's own) for every published tensor."""
    v, t, p = model.config["vision_config"], model.config["llm_config"], "vision_model.preprocessor."
    yield p + "pos_embed", model.places[None]
    yield p + "patchifier.proj.weight", model.patch_proj.view(v["hidden_size"], 3, v["patch_size"], v["patch_size"])
    yield p + "patchifier.proj.bias", model.patch_bias
    yield p + "patchifier.norm.weight", model.patch_norm
    for i, b in enumerate(model.blocks):
        at, m = f"vision_model.trunk.blocks.{i}.", v["intermediate_size"]
        own = [("norm_1", b.norm1), ("norm_2", b.norm2), ("attn.qkv", b.qkv), ("attn.proj", b.proj)]
        own += [("mlp.fc1", b.gate_up[:m]), ("mlp.fc3", b.gate_up[m:]), ("mlp.fc2", b.down)]
        yield from ((f"{at}{n}.weight", w) for n, w in own)
    yield "vision_model.trunk.post_trunk_norm.weight", model.post_norm
    for i, (w, b) in {0: (model.ln_weight, model.ln_bias), 1: (model.fc1, model.fc1_bias), 3: (model.fc2, model.fc2_bias)}.items():
        yield from ((f"mlp1.{i}.weight", w), (f"mlp1.{i}.bias", b))
    yield "language_model.model.embed_tokens.weight", model.embed
    yield "language_model.model.norm.weight", model.norm
    yield "language_model.lm_head.weight", model.head
    for i, l in enumerate(model.layers):
        at, m = f"language_model.model.layers.{i}.", t["moe_intermediate_size"]
        q, k, val = l.qkv.split([l.q * l.h, l.kv * l.h, l.kv * l.h])
        own = [("input_layernorm", l.norm1), ("post_attention_layernorm", l.norm2), ("self_attn.q_norm", l.q_norm), ("self_attn.k_norm", l.k_norm)]
        own += [("self_attn.q_proj", q), ("self_attn.k_proj", k), ("self_attn.v_proj", val), ("self_attn.o_proj", l.o), ("mlp.gate", l.router)]
        for e in range(t["num_experts"]):
            x = f"mlp.experts.{e}."
            own += [(x + "gate_proj", l.gate_up[e, :m]), (x + "up_proj", l.gate_up[e, m:]), (x + "down_proj", l.down[e])]
        yield from ((f"{at}{n}.weight", w) for n, w in own)


@torch.no_grad()
def publish(model, path):
    """Writes bf16 weights under their published names."""
    save_file({n: w.to("cpu", BF16).contiguous() for n, w in pairs(model)}, path, metadata={"format": "pt"})


@torch.no_grad()
def adopt(model, folder):
    """Reads published weights into the model."""
    stored = {}
    for shard in sorted(Path(folder).glob("*.safetensors")):
        stored |= load_file(shard)
    for name, own in pairs(model):
        own.copy_(stored.pop(name))
    assert not stored, f"tensors without a place: {sorted(stored)[:4]}"


def config_of(folder):
    return json.loads((Path(folder) / "config.json").read_text())


def compile_parts():
    """Lets torch.compile fuse what is neither a product nor a choice of experts."""
    for name in ("rms", "silu_mul", "spread", "rotate", "_act", "_act_grad", "_sum_choices"):
        globals()[name] = torch.compile(globals()[name], dynamic=True)
