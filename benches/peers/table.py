"""From rounds to medians, spreads and ratios. Pure: no file, no process, no clock."""
from statistics import median, quantiles

SAIL = "sail"


class Metric:
    """One row of the table: where a figure comes from, how it is shown, and whether more of it is better."""

    def __init__(self, key, name, digits, more_is_better, of=None):
        self.key, self.name, self.digits, self.more_is_better = key, name, digits, more_is_better
        self.of = of or (lambda figures: figures.get(key))


def per_gigabyte(figures):
    """Tokens decoded while the machine could have read 1 GB: decoding without the state of its memory."""
    return figures["decode"] / (figures["read"] / 1e9)


METRICS = [
    Metric("prefill", "prefill, tokens/s", 1, True),
    Metric("decode", "decode, tokens/s", 2, True),
    Metric("per_gigabyte", "decode, tokens/GB readable", 3, True, per_gigabyte),
    Metric("read", "readable beside decode, GB/s", 1, True, lambda figures: figures["read"] / 1e9),
    Metric("tile", "image tile, s", 2, False),
    Metric("start", "file to first token, s", 2, False),
]
WITHOUT_RATIO = {"read"}


def of_peer(document):
    """Figures of one process of contender.py: the median of its repetitions."""
    keys = ("prefill", "decode", "read", "tile", "start")
    return {key: median(document[key]) for key in keys if document[key]}


def of_sail(document):
    """The same figures in what `sail bench --json` prints."""
    figures = {"start": document["start_seconds"]}
    for run in document["runs"]:
        kind = run["name"].split()[0]
        if kind == "vision":
            figures["tile"] = run["rate"]["median"] / 1e3  # ms
        else:
            figures[kind] = run["rate"]["median"]
        if kind == "decode":
            figures["read"] = run["read_bytes"]["median"]
    return figures


def ratio(metric, figures):
    """How many times better ours is than the best peer of the same round; none without both."""
    values = {column: metric.of(of_column) for column, of_column in figures.items()}
    ours = values.pop(SAIL, None)
    peers = [value for value in values.values() if value is not None]
    if ours is None or not peers:
        return None
    return ours / max(peers) if metric.more_is_better else min(peers) / ours


def spread(values, digits):
    """`median [least .. greatest]`, or a dash for nothing."""
    values = [value for value in values if value is not None]
    if not values:
        return "–"
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle} [{low} .. {high}]"


def table(title, columns, rounds):
    """Markdown of one workload; a round is figures by column."""
    lines = [title, "", "| | " + " | ".join(columns) + " | sail / best peer |", "| --- |" + " ---: |" * (len(columns) + 1)]
    for metric in METRICS:
        cells = [spread([metric.of(figures[column]) for figures in rounds], metric.digits) for column in columns]
        ratios = [] if metric.key in WITHOUT_RATIO else [ratio(metric, figures) for figures in rounds]
        lines.append(f"| {metric.name} | " + " | ".join(cells) + f" | {spread(ratios, 2)} |")
    return "\n".join(lines)


def turns(title, rates):
    """Markdown of decoding in turns: tokens/s by column, and ours to each peer's turn of the same cycle."""
    lines = [title, "", "| | tokens/s | sail / it |", "| --- | ---: | ---: |"]
    ours = rates[SAIL]
    for column, of in rates.items():
        ratios = [mine / its for mine, its in zip(ours, of)]
        beside = "" if column == SAIL else quartiles(ratios, 3)
        lines.append(f"| {column} | {quartiles(of, 2)} | {beside} |")
    return "\n".join(lines)


def quartiles(values, digits):
    """`median [first quartile .. third]`."""
    low, middle, high = (f"{value:.{digits}f}" for value in quantiles(values, n=4))
    return f"{middle} [{low} .. {high}]"
