#!/usr/bin/env python3
"""Checks what is shipped beside the binary, as far as that goes without a container engine and a cluster.

    run.py [WORD]   only the checks whose name has this word in it

    LARDER   the gateway's binary (default: target/debug/larder of this repository)

Tools from PyPI are installed into target/packaging, anew where their versions have changed; what comes from the system
and is not there is skipped, which is said. Ends with `packaging: N checks, M failed`, and a status that is not zero where
one failed. Not run, for want of an engine and a cluster: `docker build`, `docker compose up`, `helm install`.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "packaging"
PYTHON = WORK / "venv" / "bin" / "python"


def environment() -> None:
    """An environment with just the versions of requirements.txt."""
    stamp, wanted = WORK / "venv" / ".made-of", (HERE / "requirements.txt").read_bytes()
    if stamp.is_file() and stamp.read_bytes() == wanted:
        return
    print("installing requirements.txt", flush=True)
    shutil.rmtree(WORK / "venv", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", WORK / "venv"], check=True)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", HERE / "requirements.txt"], check=True)
    stamp.write_bytes(wanted)


def main() -> int:
    begun = time.monotonic()
    WORK.mkdir(parents=True, exist_ok=True)
    environment()
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    status = subprocess.run([PYTHON, HERE / "checks.py", *sys.argv[1:]], env=env, stdout=subprocess.PIPE, text=True)
    told, _, last = status.stdout.rstrip("\n").rpartition("\n")
    if not last.startswith("packaging: "):
        print(status.stdout, "packaging: 0 checks, 1 failed", sep="\n")
        return 1
    print(f"{told}\n\n{time.monotonic() - begun:.0f} seconds\n{last}")
    return status.returncode


if __name__ == "__main__":
    sys.exit(main())
