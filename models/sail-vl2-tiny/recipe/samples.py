"""Draws the sample pictures beside the model: python samples.py [FOLDER]

`questions.json` has questions and right answers, `prompts.json` the same questions as a set for `sailc compile --quality`.

They come from a seed that neither the lessons nor the exam use, and are not chosen by what the model makes of them.
"""
import json
import random
import sys
from pathlib import Path

import scenes

TILE = 112
# Name, what is drawn, width and height in tiles.
PICTURES = [
    ("shapes-1", scenes.draw_shapes, 1, 1),
    ("shapes-2", scenes.draw_shapes, 1, 1),
    ("shapes-3", scenes.draw_shapes, 1, 1),
    ("shapes-wide", scenes.draw_shapes, 2, 1),
    ("text-1", scenes.draw_text, 1, 1),
    ("text-2", scenes.draw_text, 1, 1),
]


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    asked = []
    for name, draw, across, down in PICTURES:
        picture, questions = draw(random.Random(f"sample {name}"), across * TILE, down * TILE)
        picture.save(folder / f"{name}.png", optimize=True)
        asked += [{"picture": f"{name}.png", "kind": q.kind, "question": q.text, "answer": q.answer} for q in questions]
    (folder / "questions.json").write_text(json.dumps(asked, indent=1) + "\n")
    prompts = [{"prompt": q["question"], "images": [q["picture"]]} for q in asked]
    prompts = {"name": "sail-vl2-tiny samples", "prompts": prompts}
    (folder / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n")


if __name__ == "__main__":
    main()
