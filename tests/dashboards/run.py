#!/usr/bin/env python3
"""Checks dashboards and rules: as they lie there, and on gateways under traffic that a real Prometheus scrapes.

    run.py            all of it, in two minutes
    run.py --static   only what needs no gateway

    LARDER      the gateway's binary (default: target/debug/larder of this repository)

The environment is made in target/dashboards, anew where the versions it is to have have changed. Ends with
`dashboards: N checks, M failed`, and a status that is not zero where one failed or could not be made.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VENV = ROOT / "target" / "dashboards" / "venv"


def environment() -> pathlib.Path:
    """Python with the packages of requirements.txt."""
    stamp, wanted = VENV / ".made-of", (HERE / "requirements.txt").read_bytes()
    python = VENV / "bin" / "python"
    if not stamp.is_file() or stamp.read_bytes() != wanted:
        print("installing requirements.txt", flush=True)
        shutil.rmtree(VENV, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", HERE / "requirements.txt"], check=True)
        stamp.write_bytes(wanted)
    return python


class Checks:
    """Counts, and tells what failed."""

    def __init__(self):
        self.made = self.failed = 0

    def __call__(self, name: str, faults: list[str]):
        self.made += 1
        self.failed += bool(faults)
        for fault in faults:
            print(f"FAILED  {name}: {fault}", flush=True)


def static(check: Checks):
    """What needs no gateway."""
    import rules
    import schema
    import yaml

    dashboards = sorted((ROOT / "dashboards" / "grafana").glob("*.json"))
    ran = subprocess.run([sys.executable, ROOT / "dashboards" / "build.py", "--check"], capture_output=True, text=True)
    check("dashboards are up to date", ran.stdout.splitlines() + ran.stderr.splitlines())
    check("there are five dashboards", [] if len(dashboards) == 5 else [str(dashboards)])
    for path in dashboards:
        check(f"schema of {path.name}", schema.faults(json.loads(path.read_text())))
    for path in sorted((ROOT / "dashboards" / "grafana" / "provisioning").rglob("*.yml")):
        check(
            f"provisioning: {path.name}", [] if yaml.safe_load(path.read_text())["apiVersion"] == 1 else ["no version"]
        )
    for name, complaints in rules.promtool():
        check(name, complaints)
    check("each alert is tested", rules.untested())
    check("each alert is explained", rules.unexplained())


def on_gateways(check: Checks):
    """What a Prometheus says."""
    from live import Show

    show = Show(check)
    try:
        show.evaluate()
        show.recorded()
        show.disturb()
        show.healthy()
        show.families()
    except TimeoutError as late:
        check("the course of things", [str(late)])
    finally:
        show.stop()


def main() -> int:
    python = environment()
    if pathlib.Path(sys.prefix).resolve() != VENV.resolve():
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run([python, pathlib.Path(__file__).resolve(), *sys.argv[1:]], env=env).returncode
    begun, check = time.monotonic(), Checks()
    static(check)
    if "--static" not in sys.argv[1:]:
        on_gateways(check)
    print(f"\n{time.monotonic() - begun:.0f} seconds")
    print(f"dashboards: {check.made} checks, {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
