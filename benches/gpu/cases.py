"""What `gpucheck` says of recorded launches, a line of JSON for each, summed up: also of one that was cut off."""
import json


def summed(text):
    """Figures of all whole lines of `text`, or None where not even the first is there.

    `cases` is how many there are, `done` how many have a line. A family has its cases, of how many of them how many
    values differ from the simulator's, and by how many steps of bf16: the most, the most as the bound counts them,
    and how many values by 1, 2, up to 4, up to 8, …
    """
    lines = [json.loads(line) for line in text.split("\n")[:-1] if line.startswith("{")]
    if not lines or "cases" not in lines[0]:
        return None
    head, *rest = lines
    counts = {found: sum(line["found"] == found for line in rest) for found in ("equal", "near", "nothing", "elsewhere")}
    families = {}
    for line in rest:
        if line["found"] == "elsewhere":
            continue
        family = families.setdefault(line["family"], {"cases": 0, "differing": 0, "values": 0, "most_steps": 0, "most_counted": 0.0, "steps": {}})
        family["cases"] += 1
        if line["found"] == "near":
            family["differing"] += 1
            family["values"] += line["values"]
            for key in ("most_steps", "most_counted"):
                family[key] = max(family[key], line[key])
            for steps, values in line["steps"].items():
                family["steps"][steps] = family["steps"].get(steps, 0) + values
    return {
        "gpu": head["gpu"], "cases": head["cases"], "done": len(rest), "passed": counts["equal"] + counts["near"],
        "elsewhere": counts["elsewhere"], "nothing_to_compare": counts["nothing"],
        "failed": [{"kernel": line["kernel"], "case": line["case"], "because": line["because"]} for line in rest if line["found"] == "failed"],
        "families": dict(sorted(families.items())),
    }


def verdict(figures, names, because):
    """Why these figures are no proof, or None. `names` are the cases in their order, `because` why the program ended early."""
    if figures is None:
        return because or "nothing was said of any case"
    told = []
    done, cases = figures["done"], figures["cases"]
    if done < cases:
        following = f", the next is {names[done]}" if done < len(names) else ""
        told.append(f"{done} of {cases} cases were carried out{following}: {because or 'the program ended'}")
    elif because:
        told.append(because)
    failed = figures["failed"]
    if failed:
        first = failed[0]
        told.append(f"{len(failed)} of {cases} cases, first: {first['case']}, {first['kernel']}: {first['because']}")
    elif not figures["passed"]:
        told.append("no case was compared with anything")
    return "; ".join(told) or None
