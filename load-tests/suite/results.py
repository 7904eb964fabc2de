"""Results: ratios, files of them, and tables for the terminal and for Markdown."""

import json
import os
import statistics

from suite.peers import DIRECT, OURS, YARDSTICK

NONE = "–"
plain = "{:,.0f}".format
COLUMNS = {
    "cpu": ("CPU µs", "{:,.2f}".format), "to_best": ("× best peer", "{:.2f}".format), "to_bare": ("× bare", "{:.2f}".format),
    "rate": ("requests/s", plain), "p50": ("p50 µs", plain), "p99": ("p99 µs", plain), "p999": ("p99.9 µs", plain),
    "max": ("max µs", plain), "resident": ("resident MiB", lambda value: f"{value / 2**20:,.0f}"),
    "growth": ("growth MiB", lambda value: f"{value / 2**20:,.1f}"), "from_cache": ("from cache %", "{:.1f}".format),
    "stored": ("stored %", "{:.0f}".format), "reuse": ("connections reused %", "{:.2f}".format), "added_p50": ("added p50 µs", plain), "added_p99": ("added p99 µs", plain),
    "origin_calls": ("origin calls", plain), "per_connection": ("KiB per connection", lambda value: f"{value / 1024:.1f}"),
    "per_stream": ("KiB per stream", lambda value: f"{value / 1024:.1f}"), "kept": ("kept %", "{:.1f}".format),
    "core": ("core %", "{:.1f}".format), "bytes_read": ("read MiB", lambda value: f"{value / 2**20:,.0f}"),
    "purge_ms": ("purge ms", "{:,.1f}".format), "present": ("there before %", "{:.1f}".format), "gone": ("gone after %", "{:.1f}".format),
    "p99_before": ("p99 before µs", plain), "first_p50": ("first p50 µs", plain), "first_p99": ("first p99 µs", plain),
    "throughput": ("MiB/s", lambda value: f"{value / 2**20:,.0f}"),
    "added_first_p50": ("added first p50 µs", plain),
}


def complete(scenario):
    """Adds what compares servers with each other: ratios of the same round, and what is added to the origin's own."""
    servers, key = scenario["servers"], scenario["key"]
    rivals = {name: one["summary"][key] for name, one in servers.items() if name not in (YARDSTICK, DIRECT, OURS)}
    best = min(rivals, key=rivals.get) if rivals else None
    scenario["best_peer"] = best
    for name, one in servers.items():
        summary = one["summary"]
        if name == DIRECT:
            continue
        if best:
            summary["to_best"] = ratio(one, servers[best], key)
        if YARDSTICK in servers:
            summary["to_bare"] = ratio(one, servers[YARDSTICK], key)
        for figure in ["p50", "p99", "first_p50"] if DIRECT in servers else []:
            if figure in summary:
                summary[f"added_{figure}"] = difference(one, servers[DIRECT], figure)
    return scenario


def pairs(one, other, figure):
    """Rounds side by side: what disturbed the machine disturbed both."""
    return [(a[figure], b[figure]) for a, b in zip(one["rounds"], other["rounds"])]


def ratio(one, other, figure):
    return statistics.median(a / b if b > 0 else float("inf") for a, b in pairs(one, other, figure))


def difference(one, other, figure):
    return statistics.median(a - b for a, b in pairs(one, other, figure))


def rows(scenario):
    """A heading and a row of texts for each server, by the key."""
    columns = [name for name in scenario["columns"] if any(name in one["summary"] for one in scenario["servers"].values())]
    key = scenario["key"]
    order = sorted(scenario["servers"].items(), key=lambda item: (item[0] not in (YARDSTICK, DIRECT), item[1]["summary"].get(key, 0)))
    body = []
    for name, one in order:
        summary = one["summary"]
        body.append([name, *(COLUMNS[column][1](summary[column]) if column in summary else NONE for column in columns)])
    body.extend([name, *[NONE] * len(columns)] for name in scenario["skipped"])
    return ["server", *(COLUMNS[column][0] for column in columns)], body


def text_table(scenario):
    head, body = rows(scenario)
    widths = [max(len(row[at]) for row in [head, *body]) for at in range(len(head))]
    line = lambda row: "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
    notes = [f"  – {name}: {reason}" for name, reason in scenario["skipped"].items()]
    return "\n".join([f"\n{scenario['name']}: {scenario['title']}", line(head), *map(line, body), *notes])


def markdown_table(scenario):
    head, body = rows(scenario)
    strong = lambda row: [f"**{cell}**" for cell in row[:2]] + row[2:] if row[0] == OURS else row
    line = lambda row: "| " + " | ".join(row) + " |"
    table = [line(head), "|---" + "|---:" * (len(head) - 1) + "|", *(line(strong(row)) for row in body)]
    notes = [f"- {name} –: {reason}" for name, reason in scenario["skipped"].items()]
    return "\n".join([f"### {scenario['title']}", "", f"`{scenario['name']}`", "", *table, *([""] + notes if notes else [])])


def write(path, results):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as target:
        json.dump(rounded(results), target, indent=1, ensure_ascii=False, sort_keys=False)
        target.write("\n")


def rounded(value):
    """Five digits are more than any of it is worth."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def read(path):
    with open(path, encoding="utf-8") as source:
        return json.load(source)
