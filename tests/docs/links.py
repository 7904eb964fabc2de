"""Relative links of all documents: the file is there, and so is the heading."""

import re
import subprocess

from blocks import FENCE, ROOT

LINK = re.compile(r"(?<!!)\[[^\]\[]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The names that headings get, as GitHub makes them."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(text), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names


def checks() -> list[tuple[str, str | None]]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True, text=True)
    results = []
    for name in listed.stdout.split():
        document, broken = ROOT / name, []
        for found in LINK.finditer(prose(document.read_text())):
            target = found[1] or found[2]
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            place = (document.parent / path).resolve() if path else document
            if not place.exists():
                broken.append(target)
            elif anchor and place.suffix == ".md" and anchor not in anchors(place.read_text()):
                broken.append(target)
        results.append((f"{name}: links", f"leads nowhere: {', '.join(broken)}" if broken else None))
    return results
