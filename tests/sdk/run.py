#!/usr/bin/env python3
"""Calls models through the gateway with the SDKs that people use, against a simulator of their providers.

    run.py [PYTEST ARGUMENTS]   e.g. `-k embeddings`, `-x`; then only the scenarios in Python run that these choose

    LARDER      the gateway's binary (default: target/debug/larder of this repository)
    SDK_DIRECT  set: no gateway at all. Whatever has to do with a hit fails; what has to hold of a miss must hold

Environments are made in target/sdk, anew where the versions they are to have have changed. Ends with
`sdk: N passed, M failed`, and a status that is not zero where a scenario failed or could not be run.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "sdk"
# Which scenarios run in which environment.
ENVIRONMENTS = {
    "python": ("requirements.txt", [path.name for path in sorted(HERE.glob("test_*.py")) if path.name != "test_litellm.py"]),
    "litellm": ("requirements-litellm.txt", ["test_litellm.py"]),
}


def made(place: pathlib.Path, wanted: bytes) -> bool:
    """Whether an environment is there, with just these versions."""
    stamp = place / ".made-of"
    return stamp.is_file() and stamp.read_bytes() == wanted


def environment(name: str, requirements: str) -> pathlib.Path:
    place, wanted = WORK / f"venv-{name}", (HERE / requirements).read_bytes()
    if not made(place, wanted):
        print(f"installing {requirements}", flush=True)
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", HERE / requirements], check=True)
        (place / ".made-of").write_bytes(wanted)
    return place / "bin" / "python"


def node_modules() -> pathlib.Path:
    """Scenarios run beside their packages, for that is where Node looks for them."""
    place, wanted = WORK / "node", (HERE / "package.json").read_bytes()
    if not made(place, wanted):
        print("installing package.json", flush=True)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        shutil.copy(HERE / "package.json", place)
        subprocess.run(
            ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"], cwd=place, check=True
        )
        (place / ".made-of").write_bytes(wanted)
    shutil.copy(HERE / "sdk.test.mjs", place)
    return place


def python(name: str, chosen: list[str]) -> tuple[int, int]:
    """Runs the scenarios of one environment: how many passed, how many did not."""
    requirements, files = ENVIRONMENTS[name]
    interpreter, results = environment(name, requirements), WORK / f"{name}.xml"
    results.unlink(missing_ok=True)
    command = [
        interpreter,
        "-m",
        "pytest",
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore",
        f"--junitxml={results}",
    ]
    status = subprocess.run(
        [*command, *chosen, *files], cwd=HERE, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    ).returncode
    if not results.exists():
        return 0, 1
    counts = {key: int(value) for key, value in xml.parse(results).getroot()[0].attrib.items() if value.isdigit()}
    failed = counts["failures"] + counts["errors"] + counts["skipped"]
    nothing_chosen = status == 5 and chosen
    # A run that ended badly without a failed test has failed all the same.
    return counts["tests"] - failed, failed if failed or status == 0 or nothing_chosen else 1


def node() -> tuple[int, int]:
    sys.path.insert(0, str(HERE))
    from harness import Direct, Gateway
    from provider import Provider

    place, provider = node_modules(), Provider()
    gateway = (Direct if os.environ.get("SDK_DIRECT") else Gateway)(provider.base)
    try:
        env = {**os.environ, "GATEWAY": gateway.base, "PROVIDER": provider.base}
        command = ["node", "--test", "--test-reporter=tap", "sdk.test.mjs"]
        ran = subprocess.run(command, cwd=place, env=env, stdout=subprocess.PIPE, text=True)
    finally:
        gateway.stop()
    # Each scenario in a line; of those that failed, all there is.
    told = [line for line in ran.stdout.splitlines() if ran.returncode or re.match(r"(not )?ok|# (pass|fail)", line.strip())]
    print("\n".join(told), flush=True)
    count = lambda name: int((re.search(rf"^# {name} (\d+)", ran.stdout, re.M) or [0, 0])[1])  # noqa: E731
    failed = count("fail") + count("cancelled") + count("skipped") + count("todo")
    return count("pass"), failed if failed or ran.returncode == 0 else 1


def main() -> int:
    begun, chosen, passed, failed = time.monotonic(), sys.argv[1:], 0, 0
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "gateway.log").unlink(missing_ok=True)
    parts = [lambda name=name: python(name, chosen) for name in ENVIRONMENTS]
    for part in parts if chosen else [*parts, node]:
        good, bad = part()
        passed, failed = passed + good, failed + bad
    print(f"\n{time.monotonic() - begun:.0f} seconds")
    print(f"sdk: {passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
