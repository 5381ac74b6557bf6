"""Trains a tokenizer for scenes of another vocabulary: python tokenizer.py OUT/tokenizer.json

The one beside the model was made once and is an input of the recipe: its ids are those of the committed weights and goldens.
The form is Qwen2's: NFC, byte-level BPE, no prefix space, digits one by one, and the 35 added tokens of SAIL-VL2 in their order.
"""
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import scenes
from batches import SYSTEM

PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ADDED = """<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> <|quad_start|>
 <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|> <tool_call> </tool_call> <|fim_prefix|>
 <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|> <tool_response> </tool_response> <think> </think> <img> </img>
 <IMG_CONTEXT> <quad> </quad> <ref> </ref> <box> </box>""".split()
ORDINARY = set(ADDED[14:26])
VOCABULARY = 856


def corpus(rng, scenes_each):
    for _ in range(scenes_each):
        for q in (*scenes.draw_shapes(rng, 112, 112)[1], *scenes.draw_text(rng, 112, 112)[1], *scenes.word_questions(rng)):
            yield from (q.text, q.answer)
        yield f"system\n{SYSTEM}user\nassistant\n"


def main():
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    cut = pre_tokenizers.Split(Regex(PIECES), "isolated")
    tok.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder, tok.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tok.train_from_iterator(corpus(random.Random(1), 3000), trainer)
    for word in ADDED:
        tok.add_tokens([AddedToken(word, normalized=False, special=word not in ORDINARY)])
    tok.save(sys.argv[1])


if __name__ == "__main__":
    main()
