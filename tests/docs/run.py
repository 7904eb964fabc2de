#!/usr/bin/env python3
"""Does what the documents say: runs their commands, reads their configurations, follows their links.

    run.py [WORD]     only checks whose line has this word in it, such as the name of a document
    run.py --update   writes docs/METRICS.md anew

    LARDER      the gateway's binary (default: target/debug/larder of this repository)
    DOCS_KEEP   set: directories in which commands ran are left

Every fenced block of `sh` or `console` in README.md and docs/*.md runs, in order, against real processes (stage.py), unless
it is in NOT_RUN. A command has to end with 0; what a `console` block shows, and what `# Cache-Status: ...` promises, has to be
in what was said, numbers and ids aside. Ends with `docs: N checks, M failed`, and a status that is not zero where one failed.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import links  # noqa: E402
import metrics  # noqa: E402
from blocks import ROOT, blocks, commands, missing  # noqa: E402
from stage import Stage  # noqa: E402

DOCUMENTS = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]

# To be followed from the beginning to the end; the reader's own commands end what he has started.
IN_ORDER = ["README.md", "docs/GETTING_STARTED.md", "docs/CACHING.md"]

# Blocks that are not run: document, words of the block, reason.
NOT_RUN = [
    ("docs/INSTALL.md", "cargo install", "compiles for minutes"),
    ("docs/INSTALL.md", "make dist", "compiles for a quarter of an hour"),
    ("docs/INSTALL.md", "sudo apt install", "installs a package; tests/packaging reads it"),
    ("docs/INSTALL.md", "docker build", "needs a container engine"),
    ("docs/INSTALL.md", "docker compose", "needs a container engine"),
    ("docs/INSTALL.md", "helm install", "needs a cluster"),
    ("README.md", "make test", "it is the test this is a part of"),
    ("docs/GETTING_STARTED.md", "cargo install", "compiles for minutes"),
]

# Commands that run, and whose output is another one here.
NOT_COMPARED = [
    ("docs/ADMIN.md", "/reload?dry_run=true", "nothing has changed in the configuration"),
    ("docs/ADMIN.md", "/requests/stream", "nobody else asks while it is followed"),
    ("docs/ADMIN.md", "/entries?by=size", "the disk has something of its own here"),
    ("docs/ADMIN.md", "/disk/verify", "an empty tier is read before one can look"),
]


def compared(command) -> bool:
    return not any(name == command.block.document and words in command.text for name, words, _ in NOT_COMPARED)


def reason_not_to_run(block) -> str | None:
    return next((why for name, words, why in NOT_RUN if name == block.document and words in block.text), None)


def configuration(stage: Stage, block) -> str | None:
    """What `larder check` has against a block of TOML."""
    place = stage.directory / "checked.toml"
    place.write_text(stage.placed(block.text))
    kept = {name: value for name, value in stage.env.items() if not name.startswith("LARDER")}
    ran = subprocess.run(["larder", "check", place], env=kept, capture_output=True, text=True, timeout=30)
    return None if ran.returncode == 0 else (ran.stdout + ran.stderr).strip().replace(str(place), block.place)


def performed(document: str) -> list[tuple[str, str | None]]:
    """The checks of one document, each with what is wrong."""
    begun, found = time.monotonic(), blocks(document)
    run = [commands(block) for block in found if block.kind in ("sh", "console") and not reason_not_to_run(block)]
    results: list[tuple[str, str | None]] = []
    if not run and not any(block.kind == "toml" for block in found):
        return results
    stage = Stage(document)
    try:
        for block in found:
            # A block whose first line is its file's name is that file for the commands.
            if named := re.match(r"# ([\w-]+\.(?:toml|json))\n", block.text):
                (stage.directory / "work" / named[1]).write_text(stage.placed(block.text))
        for block in found:
            if block.kind == "toml":
                results.append((f"{block.place}: toml", configuration(stage, block)))
        said = stage.run(run, document in IN_ORDER) if run else {}
        for number, command in enumerate(command for block in run for command in block):
            text, status = said[number]
            wrong = None
            if status != 0:
                wrong = f"ended with {status}" if status is not None else "did not end"
            for line in command.shown if compared(command) else []:
                if not wrong and (words := missing(line, text)):
                    wrong = f"shown, but not said: {' '.join(words)}   (of: {line.strip()})"
            results.append((command.place, f"{wrong}\n{text.strip()}" if wrong else None))
        results.append((f"{document}: gateways listen", stage.died()))
    finally:
        stage.end()
    if os.environ.get("VERBOSE"):
        print(f"{document}: {time.monotonic() - begun:.1f} s")
    return results


def unused_reasons() -> str | None:
    """Reasons that no block has."""
    all_blocks = [block for document in DOCUMENTS for block in blocks(document)]
    unused = [(name, words) for name, words, _ in NOT_RUN if not any(b.document == name and words in b.text for b in all_blocks)]
    return f"in NOT_RUN, but no block: {unused}" if unused else None


def update() -> int:
    stage = Stage("metrics")
    try:
        (ROOT / "docs/METRICS.md").write_text(metrics.document(metrics.families(stage)))
    finally:
        stage.end()
    return 0


def metrics_checks() -> list[tuple[str, str | None]]:
    stage = Stage("metrics")
    try:
        return metrics.checks(metrics.families(stage)) + metrics.interface(stage)
    finally:
        stage.end()


def main() -> int:
    if "--update" in sys.argv:
        return update()
    word, begun = " ".join(sys.argv[1:]), time.monotonic()
    jobs = [lambda document=document: performed(document) for document in DOCUMENTS if word in document or not word]
    if not word or word in "docs/METRICS.md":
        jobs.append(metrics_checks)
    if not word or word == "links":
        jobs += [lambda: links.checks(), lambda: [("reasons not to run", unused_reasons())]]
    done = failed = 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for results in pool.map(lambda job: job(), jobs):
            for name, wrong in results:
                done, failed = done + 1, failed + bool(wrong)
                if wrong or os.environ.get("VERBOSE"):
                    print(f"{'FAILED' if wrong else 'ok    '} {name}" + (f"\n    {wrong}".replace("\n", "\n    ") if wrong else ""))
    if not word:
        for name, words, why in NOT_RUN:
            print(f"not run: {name}, `{words}`: {why}")
    print(f"\n{time.monotonic() - begun:.0f} seconds\ndocs: {done} checks, {failed} failed")
    return 0 if done and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
