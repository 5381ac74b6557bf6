"""Files for the peers, of random weights: python models.py FOLDER [NAME ...] --checkpoint SAIL-VL2-2B

Writes FOLDER/gguf/NAME.gguf for each NAME, all of them unless said, about 9 GB. Speed does not depend on what weights
are, only on their number and storage, so blocks are drawn straight in the storage format; scales are such that values
have a standard deviation of about 0.02. The checkpoint's folder gives the vocabulary alone.
"""
import argparse
import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Storage

# layers, width, heads, key/value heads, head width, feed-forward width, experts, experts of a token, tied head
DENSE = ("qwen3", 28, 2048, 16, 8, 128, 6144, 0, 0, True)
EXPERTS = ("qwen3moe", 6, 2048, 32, 4, 128, 768, 128, 8, False)
VOCABULARY = 151_936
DECODERS = {
    "qwen3-1.7b-bf16": (DENSE, Storage.BF16),
    "qwen3-1.7b-q8_0": (DENSE, Storage.Q8_0),
    "qwen3-1.7b-q4_0": (DENSE, Storage.Q4_0),
    "a3b-l6-q4_0": (EXPERTS, Storage.Q4_0),
}
VISION = "vit-huge-bf16"
FILE_TYPES = {Storage.BF16: 32, Storage.Q8_0: 7, Storage.Q4_0: 2}
DEVIATION = 0.02
# Where the float16 scale of a block is, and the standard deviation of the block's integers.
SCALES = {Storage.Q8_0: (0, 74), Storage.Q4_0: (0, 4.6), Storage.Q6_K: (208, 18 * 74)}


class Weights:
    """Writes tensors of random values into one file."""

    def __init__(self, path, architecture, seed):
        self.file = gguf.GGUFWriter(path, architecture)
        self.random = np.random.default_rng(seed)
        self.bytes = self.random.integers(0, 256, 64 << 20, np.uint8)
        self.values = self.random.standard_normal(16 << 20, np.float32) * np.float32(DEVIATION)

    def drawn(self, pool, count):
        """A copy of `count` items of a pool from a random place on, repeated when there are not enough."""
        start = int(self.random.integers(0, len(pool) // 2))
        return np.resize(pool[start:], count)

    def add(self, name, storage, *shape):
        """A tensor of `shape` (rows first)."""
        count = int(np.prod(shape))
        if storage in (Storage.F32, Storage.F16):
            dtype = np.float32 if storage == Storage.F32 else np.float16
            self.file.add_tensor(name, self.drawn(self.values, count).astype(dtype).reshape(shape))
            return
        if storage == Storage.BF16:
            data = (self.drawn(self.values, count).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        else:
            values, size = gguf.GGML_QUANT_SIZES[storage]
            data = self.drawn(self.bytes, count // values * size).reshape(-1, size)
            at, deviation = SCALES[storage]
            data[:, at : at + 2] = np.float16([DEVIATION / deviation]).view(np.uint8)
        self.file.add_tensor(name, data.reshape(*shape[:-1], -1), raw_dtype=storage)

    def fill(self, name, value, count):
        """A norm's weights or a bias, which peers keep in f32."""
        self.file.add_tensor(name, np.full(count, value, np.float32))

    def close(self):
        self.file.write_header_to_file()
        self.file.write_kv_data_to_file()
        self.file.write_tensors_to_file()
        self.file.close()


def vocabulary(file, checkpoint):
    """The checkpoint's byte-pair vocabulary, padded to the rows of the embedding."""
    ids = json.loads((checkpoint / "vocab.json").read_text())
    special = json.loads((checkpoint / "added_tokens.json").read_text())
    tokens, kinds = [f"[PAD{i}]" for i in range(VOCABULARY)], [gguf.TokenType.UNUSED] * VOCABULARY
    for words, kind in ((ids, gguf.TokenType.NORMAL), (special, gguf.TokenType.CONTROL)):
        for word, i in words.items():
            if i < VOCABULARY:
                tokens[i], kinds[i] = word, kind
    merges = [line for line in (checkpoint / "merges.txt").read_text().splitlines() if line and not line.startswith("#version")]
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("qwen2")
    file.add_token_list(tokens)
    file.add_token_types(kinds)
    file.add_token_merges(merges)
    file.add_eos_token_id(special["<|im_end|>"])
    file.add_pad_token_id(special["<|endoftext|>"])
    file.add_add_bos_token(False)


def decoder(path, shape, storage, checkpoint, seed):
    """A Qwen3 decoder. Beside q4_0 the embedding and the head are q6_k, as llama.cpp's own quantizer has them."""
    architecture, layers, width, heads, kv_heads, head, feed, experts, chosen, tied = shape
    weights = Weights(path, architecture, seed)
    file = weights.file
    file.add_name(f"random {path.stem}")
    file.add_context_length(40_960)
    file.add_embedding_length(width)
    file.add_block_count(layers)
    file.add_feed_forward_length(feed)
    file.add_head_count(heads)
    file.add_head_count_kv(kv_heads)
    file.add_key_length(head)
    file.add_value_length(head)
    file.add_rope_freq_base(1e6)
    file.add_layer_norm_rms_eps(1e-6)
    file.add_file_type(FILE_TYPES[storage])
    file.add_quantization_version(2)
    if experts:
        file.add_expert_count(experts)
        file.add_expert_used_count(chosen)
        file.add_expert_feed_forward_length(feed)
    vocabulary(file, checkpoint)

    rows = Storage.Q6_K if storage == Storage.Q4_0 else storage
    weights.add("token_embd.weight", rows, VOCABULARY, width)
    if not tied:
        weights.add("output.weight", rows, VOCABULARY, width)
    weights.fill("output_norm.weight", 1, width)
    for layer in range(layers):
        name = f"blk.{layer}.{{}}.weight".format
        weights.fill(name("attn_norm"), 1, width)
        weights.fill(name("ffn_norm"), 1, width)
        weights.fill(name("attn_q_norm"), 1, head)
        weights.fill(name("attn_k_norm"), 1, head)
        weights.add(name("attn_q"), storage, heads * head, width)
        weights.add(name("attn_k"), storage, kv_heads * head, width)
        weights.add(name("attn_v"), storage, kv_heads * head, width)
        weights.add(name("attn_output"), storage, width, heads * head)
        each, end = ((experts,), "_exps") if experts else ((), "")
        if experts:
            weights.add(name("ffn_gate_inp"), Storage.F32, experts, width)
        weights.add(name("ffn_gate" + end), storage, *each, feed, width)
        weights.add(name("ffn_up" + end), storage, *each, feed, width)
        weights.add(name("ffn_down" + end), storage, *each, width, feed)
    weights.close()


def vision(path, seed, layers=24, width=1536, heads=12, feed=4096, text=2048, side=448, patch=14):
    """A vision tower with the operations of AIMv2-huge and SAIL-VL2's adapter, in llama.cpp's graph `internvl`:
    gated feed-forward, no biases, 2 x 2 patches to one token, an MLP to the decoder's width."""
    weights = Weights(path, "clip", seed)
    file = weights.file
    file.add_type("mmproj")
    file.add_file_type(FILE_TYPES[Storage.BF16])
    file.add_bool("clip.has_vision_encoder", True)
    file.add_string("clip.projector_type", "internvl")
    file.add_bool("clip.use_silu", True)
    numbers = {
        "image_size": side, "patch_size": patch, "embedding_length": width, "feed_forward_length": feed,
        "block_count": layers, "attention.head_count": heads, "projection_dim": text, "projector.scale_factor": 2,
        "preproc_min_tiles": 1, "preproc_max_tiles": 1,
    }
    for name, number in numbers.items():
        file.add_uint32(f"clip.vision.{name}", number)
    file.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    file.add_array("clip.vision.image_mean", [0.485, 0.456, 0.406])
    file.add_array("clip.vision.image_std", [0.229, 0.224, 0.225])

    weights.add("v.class_embd", Storage.F32, width)
    weights.add("v.patch_embd.weight", Storage.F16, width, 3, patch, patch)
    weights.fill("v.patch_embd.bias", 0, width)
    weights.add("v.position_embd.weight", Storage.F32, (side // patch) ** 2 + 1, width)
    for layer in range(layers):
        name = f"v.blk.{layer}.{{}}.weight".format
        weights.fill(name("ln1"), 1, width)
        weights.fill(name("ln2"), 1, width)
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            weights.add(name(part), Storage.BF16, width, width)
        weights.add(name("ffn_gate"), Storage.BF16, feed, width)
        weights.add(name("ffn_up"), Storage.BF16, feed, width)
        weights.add(name("ffn_down"), Storage.BF16, width, feed)
    weights.fill("v.post_ln.weight", 1, width)
    weights.fill("mm.model.mlp.0.weight", 1, 4 * width)
    weights.fill("mm.model.mlp.0.bias", 0, 4 * width)
    weights.add("mm.model.mlp.1.weight", Storage.BF16, text, 4 * width)
    weights.fill("mm.model.mlp.1.bias", 0, text)
    weights.add("mm.model.mlp.3.weight", Storage.BF16, text, text)
    weights.fill("mm.model.mlp.3.bias", 0, text)
    weights.close()


def main():
    names = [*DECODERS, VISION]
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder", type=Path)
    p.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    p.add_argument("--checkpoint", type=Path, required=True, help="folder with vocab.json, merges.txt, added_tokens.json")
    p.add_argument("--seed", type=int, default=7)
    a = p.parse_intermixed_args()
    if unknown := set(a.names) - set(names):
        p.error(f"no model `{unknown.pop()}`; there are {', '.join(names)}")
    for name in a.names or names:
        path = a.folder / "gguf" / f"{name}.gguf"
        if name == VISION:
            vision(path, a.seed)
        else:
            decoder(path, *DECODERS[name], a.checkpoint, a.seed)
        print(f"{path}: {path.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
