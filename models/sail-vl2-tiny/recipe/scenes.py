"""Pictures of coloured shapes and of printed text, each with every question that may be asked about it.

`draw_shapes` and `draw_text` return (Pillow picture, list of Question); `word_questions` needs no picture.
`held_out(seed, n)` is the exam: one picture or none, one question. Everything follows from the given random.Random.
"""
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLOURS = {
    "red": (212, 36, 38), "green": (40, 158, 62), "blue": (36, 80, 204), "yellow": (242, 206, 34),
    "purple": (134, 48, 164), "orange": (246, 132, 28), "black": (22, 22, 22), "white": (252, 252, 252),
}
GROUNDS = [(222, 222, 222), (198, 212, 228), (232, 222, 202), (202, 222, 202), (168, 173, 183)]
INKS = ["black", "blue", "red", "purple"]
FORMS = ["circle", "square", "triangle", "diamond", "cross", "ring"]
PLACES = ["top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right"]
COUNTS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = (
    "bird boat dock door fire fish flag gate gold hull iron knot lamp mast moon rain reef road rock rope "
    "sail salt sand ship snow star tide tree wave wind"
).split()
# How many shapes a picture holds: drawn evenly from this list.
CROWDS = [1, 1, 2, 2, 3]
# Widths and heights in tiles; a picture of more than one tile is also seen whole, as a thumbnail.
FORMATS = {(1, 1): 94, (2, 1): 2, (1, 2): 2, (2, 2): 2}


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str


@dataclass(frozen=True)
class Thing:
    colour: str
    form: str
    place: str

    def __str__(self):
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.form}"


def nearly(rng, colour, spread):
    return tuple(min(255, max(0, c + rng.randint(-spread, spread))) for c in colour)


def blank(rng, width, height):
    picture = Image.new("RGB", (width, height), nearly(rng, rng.choice(GROUNDS), 8))
    return picture, ImageDraw.Draw(picture)


def paint(draw, form, x, y, side, fill):
    """One form inside the square with corner (x, y), in pixels."""
    right, low, mid_x, mid_y = x + side, y + side, x + side / 2, y + side / 2
    match form:
        case "circle":
            draw.ellipse((x, y, right, low), fill=fill)
        case "ring":
            draw.ellipse((x, y, right, low), outline=fill, width=max(2, round(side / 5)))
        case "square":
            draw.rectangle((x, y, right, low), fill=fill)
        case "triangle":
            draw.polygon([(mid_x, y), (right, low), (x, low)], fill=fill)
        case "diamond":
            draw.polygon([(mid_x, y), (right, mid_y), (mid_x, low), (x, mid_y)], fill=fill)
        case "cross":
            arm = side / 6
            draw.rectangle((mid_x - arm, y, mid_x + arm, low), fill=fill)
            draw.rectangle((x, mid_y - arm, right, mid_y + arm), fill=fill)


def draw_shapes(rng, width, height):
    """One to three things, each in a cell of its own of a 3 x 3 grid."""
    picture, draw = blank(rng, width, height)
    cell_w, cell_h, things = width / 3, height / 3, []
    for cell in sorted(rng.sample(range(9), rng.choice(CROWDS))):
        thing = Thing(rng.choice(list(COLOURS)), rng.choice(FORMS), PLACES[cell])
        side = min(cell_w, cell_h) * rng.uniform(0.66, 0.88)
        x = cell % 3 * cell_w + rng.uniform(0, cell_w - side)
        y = cell // 3 * cell_h + rng.uniform(0, cell_h - side)
        paint(draw, thing.form, x, y, side, nearly(rng, COLOURS[thing.colour], 12))
        things.append(thing)
    return picture, shape_questions(rng, things)


def shape_questions(rng, things):
    parts = [f"{t} at the {t.place}" for t in things]
    listing = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    form = rng.choice(FORMS)
    plural = form + ("es" if form == "cross" else "s")
    one = rng.choice(things)
    out = [
        Question("describe", "Describe the image.", f"{listing[0].upper()}{listing[1:]}."),
        Question("how many shapes", "How many shapes are there?", COUNTS[len(things)]),
        Question("how many of a form", f"How many {plural} are there?", COUNTS[sum(t.form == form for t in things)]),
        Question("what is at", f"What is at the {one.place}?", f"{str(one).capitalize()}."),
    ]
    single = [t for t in things if sum(u.form == t.form for u in things) == 1]
    if single:
        one = rng.choice(single)
        out.append(Question("what color", f"What color is the {one.form}?", one.colour))
        one = rng.choice(single)
        out.append(Question("where is", f"Where is the {one.form}?", f"At the {one.place}."))
    return out


def draw_text(rng, width, height):
    """A four-letter word in small or capital letters, or a number of two or three digits, at least 14 pixels high."""
    picture, draw = blank(rng, width, height)
    if rng.random() < 0.5:
        text = rng.choice(WORDS)
        text = text.upper() if rng.random() < 0.4 else text
    else:
        text = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 3)))
    fit = min(height * 0.5, width / len(text) * rng.uniform(1.25, 1.5))
    font = ImageFont.load_default(size=max(14, int(fit)))
    left, top, right, low = draw.textbbox((0, 0), text, font=font)
    x = rng.uniform(2, max(3, width - (right - left) - 2)) - left
    y = rng.uniform(2, max(3, height - (low - top) - 2)) - top
    ink = rng.choice(INKS)
    draw.text((x, y), text, font=font, fill=nearly(rng, COLOURS[ink], 12))
    return picture, [
        Question("read", "Read the text in the image.", text),
        Question("what color text", "What color is the text?", ink),
    ]


def word_questions(rng):
    """What can be asked without a picture."""
    a, b, word = rng.randint(0, 9), rng.randint(0, 9), rng.choice(WORDS)
    return [
        Question("plus", f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."),
        Question("spell", f"Spell the word {word}.", "-".join(word)),
    ]


def held_out(seed, n, tile):
    """n independent exam questions: (picture or None, Question). 6 % are without a picture, 34 % show text."""
    for i in range(n):
        rng = random.Random(f"exam {seed} {i}")
        across, down = rng.choices(list(FORMATS), FORMATS.values())[0]
        draw = rng.choices([None, draw_text, draw_shapes], [6, 34, 60])[0]
        if draw is None:
            yield None, rng.choice(word_questions(rng))
            continue
        picture, questions = draw(rng, across * tile, down * tile)
        weight = {"describe": 2.5, "read": 4.0}
        yield picture, rng.choices(questions, [weight.get(q.kind, 1.0) for q in questions])[0]
