"""The rules as they lie there: whether Prometheus takes them, and whether each alert is tested and explained."""

import pathlib
import re
import subprocess

import yaml
from stage import ROOT

HOME = ROOT / "dashboards" / "prometheus"
FILES = [HOME / "recording.yml", HOME / "alerts.yml"]

# Nobody waits a day for a test. What is minutes in the rules is seconds here, and what is usual is what was so for some
# minutes; thresholds stay as they are. Nothing else differs between the rules that are tested and those that are shipped.
SHORTER = [
    (r"\[5m\]", "[6s]"),
    (r"\[10m\]", "[12s]"),
    (r"\[1d\] offset 1h", "[3m] offset 20s"),
    (r"for: (30s|1m|5m|10m)$", "for: 2s"),
]


def shortened(directory: pathlib.Path):
    """The rules for the live test."""
    for path in FILES:
        text = path.read_text()
        for long, short in SHORTER:
            text = re.sub(long, short, text, flags=re.MULTILINE)
        (directory / path.name).write_text(text)


def all_rules(name: str) -> list[dict]:
    groups = yaml.safe_load((HOME / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict]:
    return all_rules("alerts.yml")


def promtool() -> list[tuple[str, list[str]]]:
    """Each call of promtool, and what it complained of."""
    tests = sorted((HOME / "tests").glob("*.yml"))
    calls = [["check", "rules", *FILES], ["check", "config", HOME / "prometheus.yml"], ["test", "rules", *tests]]
    return [(f"promtool {call[0]} {call[1]}", complaints(call)) for call in calls]


def complaints(call: list) -> list[str]:
    ran = subprocess.run(["promtool", *map(str, call)], capture_output=True, text=True)
    return [] if ran.returncode == 0 else (ran.stdout + ran.stderr).splitlines()


def anchors() -> set[str]:
    """Headings of the runbook, as links name them."""
    lines = (ROOT / "docs" / "RUNBOOK.md").read_text().splitlines()
    headings = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def untested() -> list[str]:
    """Alerts without a test in which they fire, and one in which they do not."""
    tests = [test for path in (HOME / "tests").glob("*.yml") for test in yaml.safe_load(path.read_text())["tests"]]
    names = [test["name"] for test in tests]
    missing = []
    for alert in alerts():
        for does in ("fires", "does not fire"):
            if not any(name.startswith(f"{alert['alert']} {does}:") for name in names):
                missing.append(f"no test in which {alert['alert']} {does}")
    return missing


def unexplained() -> list[str]:
    """Alerts that lack a word, or name a page that is not there."""
    known, missing = anchors(), []
    for alert in alerts():
        told = alert.get("annotations", {})
        place, _, anchor = told.get("runbook_url", "").partition("#")
        if place != "docs/RUNBOOK.md" or anchor not in known:
            missing.append(f"{alert['alert']}: no entry {told.get('runbook_url')!r}")
        if not told.get("summary") or not told.get("description"):
            missing.append(f"{alert['alert']}: no summary, or no description")
        if alert.get("labels", {}).get("severity") not in ("critical", "warning"):
            missing.append(f"{alert['alert']}: no severity")
    return missing
