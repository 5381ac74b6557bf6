"""Training batches: several pictures and all their questions packed into each row, so that a picture is seen once and asked often.

A row is: the system prompt, then groups. A group is one picture (or none) followed by branches, each a question with its answer.
A branch sees the system prompt, its own picture and itself, at the positions it would have alone; so its logits are those of
the plain prompt, which `evaluate.py` relies on and `check_packing` in it holds.
"""
import random

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

import scenes

SYSTEM = "你是由抖音内容理解组开发的多模态大模型，英文名叫UniVL, 是一个有用无害的人工智能助手。"
OPENING = f"<|im_start|>system\n{SYSTEM}<|im_end|><|im_start|>user\n"
CLOSING = "<|im_end|><|im_start|>assistant\n"
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
# Words that must be seen weigh more in the loss than those that only make the sentence: whole answers by kind, and names of forms.
LOSS_WEIGHT = {"read": 3.0, "what is at": 1.5, "how many of a form": 2.0, "what color": 2.0, "where is": 2.0}
FORM_WEIGHT = 3.0
IGNORED = -100


def tiles_of(picture, size, limit):
    """A picture as u8 tiles [n, size, size, 3]: the grid nearest to its shape, then the whole as a thumbnail."""
    width, height = picture.size
    grids = sorted(
        ((i, j) for i in range(1, limit + 1) for j in range(1, limit + 1) if i * j <= limit), key=lambda g: g[0] * g[1]
    )
    best, nearest = (1, 1), float("inf")
    for i, j in grids:
        off = abs(width / height - i / j)
        if off < nearest or (off == nearest and width * height > 0.5 * size * size * i * j):
            best, nearest = (i, j), min(off, nearest)
    i, j = best
    whole = picture.convert("RGB").resize((size * i, size * j), Image.BICUBIC)
    tiles = [whole.crop((c * size, r * size, (c + 1) * size, (r + 1) * size)) for r in range(j) for c in range(i)]
    if i * j > 1:
        tiles.append(picture.convert("RGB").resize((size, size), Image.BICUBIC))
    return np.stack([np.asarray(t) for t in tiles])


def pixels_of(tiles):
    """u8 [n, S, S, 3] -> f32 [n, 3, S, S], normalised."""
    return ((tiles.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)


class Packer:
    """Turns pictures and questions into rows of token ids, positions and visibility."""

    def __init__(self, tokenizer_path, config):
        self.tok = Tokenizer.from_file(str(tokenizer_path))
        self.tile, self.limit = config["force_image_size"], config["max_dynamic_patch"]
        self.places = (self.tile // config["vision_config"]["patch_size"] // 2) ** 2
        self.opening = self.ids(OPENING)
        self.forms = {self.ids(f" {form}")[0] for form in scenes.FORMS}
        self.context, self.pad = self.tok.token_to_id("<IMG_CONTEXT>"), self.tok.token_to_id("<|endoftext|>")

    def ids(self, text):
        return self.tok.encode(text).ids

    def row(self, groups):
        """groups: list of (tile count, questions) -> list of (id, position, group, branch, label, weight)."""
        cells = [(t, i, 0, 0, IGNORED, 0.0) for i, t in enumerate(self.opening)]
        for g, (tiles, questions) in enumerate(groups, 1):
            at = len(self.opening)
            if tiles:
                image = self.ids("<img>" + "<IMG_CONTEXT>" * (self.places * tiles) + "</img>\n")
                cells += [(t, at + i, g, 0, IGNORED, 0.0) for i, t in enumerate(image)]
                at += len(image)
            for b, q in enumerate(questions, 1):
                asked, told = self.ids(q.text + CLOSING), self.ids(q.answer + "<|im_end|>")
                want = [IGNORED] * (len(asked) - 1) + told + [IGNORED]
                weight = LOSS_WEIGHT.get(q.kind, 1.0)
                cells += [
                    (t, at + i, g, b, w, weight * (FORM_WEIGHT if w in self.forms else 1.0))
                    for i, (t, w) in enumerate(zip(asked + told, want))
                ]
        return cells

    def batch(self, pictures, rows):
        """Rows padded to one length, a multiple of 16 -> dict of arrays; padding is a group of its own."""
        length = -(-max(map(len, rows)) // 16) * 16
        padded = [r + [(self.pad, 0, -1, 0, IGNORED, 0.0)] * (length - len(r)) for r in rows]
        names = ["ids", "positions", "groups", "branches", "labels", "weights"]
        out = {n: np.array([[c[k] for c in r] for r in padded]) for k, n in enumerate(names)}
        out["weights"] = out["weights"].astype(np.float32)
        out["tiles"] = np.concatenate(pictures) if pictures else np.zeros((0, self.tile, self.tile, 3), np.uint8)
        return out

    def training_batch(self, seed, index, size):
        """Batch number `index`: about `size` tiles' worth of rows, each a picture of shapes, one of text and a few words."""
        rng = random.Random(f"lesson {seed} {index}")
        across, down = rng.choices(list(scenes.FORMATS), scenes.FORMATS.values())[0]
        per = 1 if across * down == 1 else across * down + 1
        pictures, rows = [], []
        for _ in range(max(4, size // (2 * per))):
            groups = []
            for draw in (scenes.draw_shapes, scenes.draw_text):
                picture, questions = draw(rng, across * self.tile, down * self.tile)
                tiles = tiles_of(picture, self.tile, self.limit)
                pictures.append(tiles)
                asked = questions if len(questions) < 3 else [questions[0]] + rng.sample(questions[1:], 2)
                groups.append((len(tiles), asked))
            if rng.random() < 0.2:
                groups.append((0, [rng.choice(scenes.word_questions(rng))]))
            rows.append(self.row(groups))
        return self.batch(pictures, rows)
