"""What a document holds: its fenced blocks, and of those for a shell the commands, each with what it is said to show."""

import pathlib
import re
import subprocess
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FENCE = re.compile(r"^( *)(```+)(\w*)[^\n]*\n(.*?)^\1\2 *$", re.M | re.S)


@dataclass
class Block:
    document: str  # path from the root
    line: int
    kind: str  # "sh", "console", "toml", ...
    text: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass
class Command:
    block: Block
    text: str
    shown: list[str]  # lines the document shows of its output

    @property
    def place(self) -> str:
        return f"{self.block.place}: {self.text.splitlines()[0][:80]}"


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text()
    return [Block(document, text.count("\n", 0, each.start()) + 1, each[3], each[4]) for each in FENCE.finditer(text)]


def complete(text: str) -> bool:
    """Whether a shell would run this, or wait for more lines."""
    if text.rstrip("\n").endswith("\\"):
        return False
    parsed = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    return parsed.returncode == 0 and "here-document" not in parsed.stderr


def commands(block: Block) -> list[Command]:
    lines = block.text.splitlines()
    if block.kind == "console":
        found: list[Command] = []
        for line in lines:
            if line.startswith("$ "):
                found.append(Command(block, line[2:], []))
            elif line.startswith("> ") and found and not found[-1].shown:
                found[-1].text += "\n" + line[2:]
            elif found:
                found[-1].shown.append(line)
        return found
    found, held = [], ""
    for line in lines:
        held += line + "\n"
        if not held.strip() or re.fullmatch(r"\s*#.*", held.strip("\n")):
            held = ""
        elif complete(held):
            # What follows `# Cache-Status:` says what the response has.
            shown = re.findall(r"#.*?(Cache-Status: [^#\n]+)", held)
            found.append(Command(block, held.rstrip("\n"), shown))
            held = ""
    return found + ([Command(block, held, [])] if held else [])


UNITS = {"ms", "KiB", "MiB", "GiB", "GB", "larder"}


def missing(shown: str, said: str) -> list[str]:
    """Words of a shown line that were not said; numbers, ids, paths and what stands for more (`…`) do not count."""
    if shown.startswith("Cache-Status:"):
        said = "\n".join(re.findall(r"^(?:cache-status:|larder;).*", said, re.M | re.I))
    words = re.sub(r"\.\.\.|…|(?<![\w\"/:])/[\w./-]+", " ", shown)
    words = re.findall(r"[A-Za-z][A-Za-z_-]+", re.sub(r"\b\w*\d\w*\b", " ", words.replace("L1", "Lone").replace("L3", "Lthree")))
    said = said.replace("L1", "Lone").replace("L3", "Lthree").lower()
    return [word for word in words if word not in UNITS and word.lower() not in said]
