#!/usr/bin/env python3
"""Writes dashboards/grafana/*.json, which Grafana reads, from the panels in dashboards/panels/.

build.py            writes them
build.py --check    only says which are not up to date; ends with 1 if any is
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from panels import llm, overview, process, purge, tiers  # noqa: E402


def files() -> dict[pathlib.Path, str]:
    """What each file has to say."""
    built = [part.build() for part in (overview, tiers, purge, llm, process)]
    text = lambda dashboard: json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"  # noqa: E731
    return {HERE / "grafana" / f"{dashboard['uid']}.json": text(dashboard) for dashboard in built}


def outdated() -> list[pathlib.Path]:
    """Files that are missing, say something else, or should not be there."""
    wanted, found = files(), set((HERE / "grafana").glob("*.json"))
    changed = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    return changed + sorted(found - set(wanted))


def main() -> int:
    if "--check" in sys.argv[1:]:
        for path in outdated():
            print(f"not up to date: {path.relative_to(HERE.parent)} (dashboards/build.py writes it)")
        return 1 if outdated() else 0
    for path, text in files().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
