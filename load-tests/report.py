#!/usr/bin/env python3
"""Writes a run's tables and picture into docs/PERFORMANCE.md, between its markers, and docs/performance.svg."""

import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

from suite import picture, results  # noqa: E402

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def machine(found):
    here, how = found["machine"], found["how"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"Run of {found['made']}, `{how['set']}` set: {how['rounds']} rounds of {how['seconds']:g} s, {how['connections']} "
        f"connections, Larder built with the `{how['profile']}` profile. {here['cpu']}{' (virtual)' if here['virtual'] else ''}, "
        f"{here['cores']} cores, {here['memory_gib']} GiB, Linux {here['kernel']}. {versions}."
    )


def generated(found):
    tables = "\n\n".join(results.markdown_table(one) for one in found["scenarios"])
    return f"{BEGIN}\n\n{machine(found)}\n\n![Larder beside its peers](performance.svg)\n\n{tables}\n\n{END}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="?", default=os.path.join(HERE, "results", "latest.json"))
    parser.add_argument("--document", default=os.path.join(ROOT, "docs", "PERFORMANCE.md"))
    options = parser.parse_args()
    found = results.read(options.results)
    with open(options.document, encoding="utf-8") as source:
        before, begin, rest = source.read().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"no {BEGIN} and {END} in the document")
    with open(options.document, "w", encoding="utf-8") as target:
        target.write(before + generated(found) + after)
    with open(os.path.join(os.path.dirname(options.document), "performance.svg"), "w", encoding="utf-8") as target:
        target.write(picture.draw(found))


if __name__ == "__main__":
    main()
