"""Draws results as SVG: for each scenario a bar for each server, by what the scenario is about."""

from html import escape

from suite.peers import DIRECT, OURS, YARDSTICK
from suite.results import COLUMNS

PANEL, GAP, LEFT, BAR, COLUMNS_OF_PANELS = 400, 24, 104, 17, 2
TITLE_LINES, LINE = 2, 15
CAPTIONS = {
    "cpu": "server CPU per request, µs", "p99": "p99, µs", "growth": "growth of resident memory, MiB",
    "purge_ms": "time until answered, ms",
}
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2933; } .title { font-weight: 600; } .note { fill: #616e7c; font-size: 11px; }
.bar { fill: #9aa5b1; } .ours { fill: #d9622b; } .bare { fill: #cbd2d9; } .ground { fill: #ffffff; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e7eb; } .note { fill: #9aa5b1; } .bar { fill: #616e7c; } .bare { fill: #3e4c59; } .ground { fill: #12171d; }
}
"""


def draw(results):
    """The whole picture: panels in two columns, each as high as it needs."""
    panels = [panel(one) for one in results["scenarios"] if one["servers"]]
    heights = [0] * COLUMNS_OF_PANELS
    parts = []
    for body, height in panels:
        column = heights.index(min(heights))
        parts.append(f'<g transform="translate({GAP + column * (PANEL + GAP)} {GAP + heights[column]})">{body}</g>')
        heights[column] += height + GAP
    width, height = GAP + COLUMNS_OF_PANELS * (PANEL + GAP), GAP + max(heights)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">'
        f"<title>Larder beside its peers; shorter is better</title><style>{STYLE}</style>"
        f'<rect class="ground" width="{width}" height="{height}"/>' + "\n".join(parts) + "</svg>\n"
    )


def panel(scenario):
    key = scenario["key"]
    shown = {name: one["summary"][key] for name, one in scenario["servers"].items() if name != DIRECT and key in one["summary"]}
    order = sorted(shown, key=lambda name: (name != YARDSTICK, shown[name]))
    longest = max(shown.values(), default=0) or 1
    lines = wrapped(scenario["title"], 62)[:TITLE_LINES]
    parts = [f'<text class="title" x="0" y="{12 + at * LINE}">{escape(line)}</text>' for at, line in enumerate(lines)]
    top = len(lines) * LINE + 12
    parts.append(f'<text class="note" x="0" y="{top}">{CAPTIONS.get(key, key)}; shorter is better</text>')
    top += 8
    for at, name in enumerate([*order, *scenario["skipped"]]):
        parts.append(bar(name, shown.get(name), longest, top + at * (BAR + 4), key))
    return "".join(parts), top + (len(order) + len(scenario["skipped"])) * (BAR + 4)


def bar(name, value, longest, y, key):
    label = f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
    if value is None:
        return label + f'<text class="note" x="{LEFT}" y="{y + 13}">–</text>'
    width = max(1.0, value / longest * (PANEL - LEFT - 64))
    kind = {OURS: "ours", YARDSTICK: "bare"}.get(name, "bar")
    text = COLUMNS[key][1](value)
    return (
        label + f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>'
        f'<text class="note" x="{LEFT + width + 6:.1f}" y="{y + 13}">{text}</text>'
    )


def wrapped(text, width):
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
