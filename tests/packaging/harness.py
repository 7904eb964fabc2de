"""What a check is: a function that returns when all is well, raises `Failed` where it is not, `Skipped` where it cannot tell."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
WORK = ROOT / "target" / "packaging"
LARDER = pathlib.Path(os.environ.get("LARDER") or ROOT / "target" / "debug" / "larder")
CARGO_TOML = tomllib.loads((ROOT / "Cargo.toml").read_text())

CHECKS = []


class Failed(Exception):
    """Something is not as it has to be."""


class Skipped(Exception):
    """What is needed to tell is not here."""


def check(function):
    """Adds a check; its name is what is printed."""
    CHECKS.append(function)
    return function


def need(condition, otherwise: str) -> None:
    if not condition:
        raise Failed(otherwise)


def tool(name: str) -> str:
    """Where a program of the system is."""
    found = shutil.which(name)
    if not found:
        raise Skipped(f"{name} is not installed")
    return found


def run(*command, env=None, text_in=None) -> str:
    """What a command says, on both streams, and that it ends with 0."""
    ran = subprocess.run(
        [str(word) for word in command], env=env, input=text_in, capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    said = (ran.stdout + ran.stderr).strip()
    need(ran.returncode == 0, f"{pathlib.Path(command[0]).name} ended with {ran.returncode}:\n{said}")
    return said


def larder(*arguments, **variables) -> str:
    """As `run`, of the gateway's binary, with these of its variables and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LARDER_")}
    return run(LARDER, *arguments, env={**kept, **variables})


@contextlib.contextmanager
def fails(what: str):
    """The body fails; that is what is checked."""
    try:
        yield
    except Skipped:
        raise
    except Exception:
        return
    raise Failed(f"not refused: {what}")


def fresh(name: str) -> pathlib.Path:
    """An empty directory."""
    place = WORK / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def found(pattern: str, text: str) -> str:
    """The first group of the first match."""
    match = re.search(pattern, text, re.M)
    need(match, f"no {pattern!r}")
    return match[1]


def perform(word: str) -> int:
    """Runs the checks with `word` in their names, and says how many there were."""
    done, failed = 0, 0
    for function in CHECKS:
        name = function.__name__.replace("_", " ")
        if word not in name:
            continue
        try:
            function()
            print(f"ok       {name}")
        except Skipped as why:
            print(f"skipped  {name}: {why}")
            continue
        except Exception as why:  # noqa: BLE001  a check that breaks is a check that fails
            failed += 1
            print(f"FAILED   {name}: {why if isinstance(why, Failed) else repr(why)}")
        done += 1
    print(f"packaging: {done} checks, {failed} failed")
    return 0 if done and not failed else 1
