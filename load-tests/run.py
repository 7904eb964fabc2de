#!/usr/bin/env python3
"""Measures Larder beside its peers, each alone on one core, load and origin on another. See README.md."""

import argparse
import datetime
import os
import shutil
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

import train  # noqa: E402
from suite import machine, peers, results, scenarios  # noqa: E402
from suite.loads import Client  # noqa: E402
from suite.measure import measure, say  # noqa: E402
from suite.processes import raise_limits, stop_all  # noqa: E402

SETS = {"short": {"rounds": 2, "seconds": 2.0}, "full": {"rounds": 5, "seconds": 4.0}}
FILES_NEEDED = 12_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    several = {"type": lambda text: text.split(",")}
    parser.add_argument("--set", choices=SETS, default="short", help="short: the main scenarios; full: all of them, longer")
    parser.add_argument("--scenario", **several, help="these instead of a set, separated by commas")
    parser.add_argument("--servers", **several, help="these instead of all, separated by commas; the yardstick comes by itself")
    parser.add_argument("--without", **several, default=[], help="servers to leave out")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="length of a round")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--profile", help="cargo profile: release for the short set, dist for the full one")
    parser.add_argument("--build", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--install", action="store_true", help="install what is missing from Debian")
    parser.add_argument("--output", help="where the JSON goes; results/latest.json for a set")
    parser.add_argument("--list", action="store_true", help="say which scenarios there are")
    options = parser.parse_args()
    for name, value in SETS[options.set].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.profile = options.profile or ("dist" if options.set == "full" and not options.scenario else "release")
    options.programs = os.path.join(ROOT, "target", "debug" if options.profile == "dev" else options.profile)
    options.disk = os.path.join(ROOT, "target")
    options.scratch = "/dev/shm" if os.path.isdir("/dev/shm") else None
    return options


def chosen(options):
    if not options.scenario:
        return [one for one in scenarios.SCENARIOS if one.short or options.set == "full"]
    found = [scenarios.named(name) for name in options.scenario]
    if None in found:
        sys.exit(f"no such scenario; there are: {', '.join(one.name for one in scenarios.SCENARIOS)}")
    return found


def servers_of(scenario, options):
    names = options.servers or [name for name in peers.STARTERS if name != peers.YARDSTICK]
    if unknown := [name for name in [*names, *options.without] if name not in peers.STARTERS]:
        sys.exit(f"no such server: {', '.join(unknown)}; there are: {', '.join(peers.STARTERS)}")
    names = [name for name in names if name != peers.YARDSTICK]
    first = [peers.YARDSTICK] * scenario.bare + [peers.DIRECT] * scenario.direct
    able = [name for name in names if not scenario.servers or name in scenario.servers]
    return [name for name in [*first, *able] if name not in options.without]


def build(options):
    programs = ["--example", "bare", "--example", "origin", "--example", "load"]
    if options.profile == "dist":
        train.main([])
    else:
        programs += ["--bin", "larder"]
    subprocess.run(["cargo", "build", "--profile", options.profile, *programs], cwd=ROOT, check=True)


def check_machine(options):
    if options.install:
        machine.install()
    if missing := [tool for tool in machine.NEEDED if not shutil.which(tool)]:
        sys.exit(f"not installed: {', '.join(missing)}; --install installs what is missing")
    allowed = os.sched_getaffinity(0)
    if not {options.server_core, options.client_core} <= allowed or options.server_core == options.client_core:
        sys.exit(f"two cores are needed; here are {sorted(allowed)}")
    options.files = raise_limits()
    if options.files < FILES_NEEDED:
        say(f"warning: `ulimit -Hn` is {options.files}; idle and sse need {FILES_NEEDED} open files and will fail")


def run(options):
    found = {
        "made": datetime.date.today().isoformat(),
        "machine": machine.describe(),
        "versions": machine.versions(os.path.join(options.programs, "larder")),
        "how": {name: getattr(options, name) for name in ["set", "profile", "rounds", "seconds", "connections"]},
        "scenarios": [],
    }
    client = Client(options.client_core, None, options.programs, options.seconds, options.connections)
    path = options.output or (None if options.scenario else os.path.join(HERE, "results", "latest.json"))
    for scenario in chosen(options):
        result = results.complete(measure(scenario, servers_of(scenario, options), client, options))
        found["scenarios"].append(result)
        print(results.text_table(result), flush=True)
        if path:
            # After each, so that a run that is interrupted has not been for nothing.
            results.write(path, found)


def main():
    options = arguments()
    if options.list:
        for one in scenarios.SCENARIOS:
            print(f"{one.name:14} {'short ' if one.short else 'full  '} {one.title}")
        return
    check_machine(options)
    if options.build:
        build(options)
    # So that whoever stops this stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(options)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        stop_all()


if __name__ == "__main__":
    main()
