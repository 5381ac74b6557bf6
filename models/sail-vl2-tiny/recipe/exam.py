"""Writes held-out scenes to a folder for `sail eval`: python exam.py FOLDER [--scenes 4000] [--seed 12345]

`scenes.jsonl` has a line for each scene: its picture (a PNG beside it, or null), kind, question and right answer;
`prompts.json` is the same as a prompt set for `sailc calibrate` and `sailc compile --quality`.
"""
import argparse
import json
from pathlib import Path

import scenes

TILE = 112


def write(folder, count, seed):
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for at, (picture, question) in enumerate(scenes.held_out(seed, count, TILE)):
        name = None
        if picture is not None:
            name = f"{at:05}.png"
            picture.save(folder / name)
        lines.append({"picture": name, "kind": question.kind, "question": question.text, "answer": question.answer})
    (folder / "scenes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prompts = [{"prompt": line["question"], "images": [line["picture"]] if line["picture"] else []} for line in lines]
    prompts = {"name": f"{count} scenes, seed {seed}", "prompts": prompts}
    (folder / "prompts.json").write_text(json.dumps(prompts) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder", type=Path)
    p.add_argument("--scenes", type=int, default=4000)
    p.add_argument("--seed", type=int, default=12345)
    a = p.parse_args()
    write(a.folder, a.scenes, a.seed)


if __name__ == "__main__":
    main()
