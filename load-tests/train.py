#!/usr/bin/env python3
"""Builds what is shipped: with link-time optimisation, and laid out by a profile of a gateway under load.

A compiler guesses which branches are taken and which calls are worth inlining; a profile tells it. The load is short and
of all kinds (see `traffic`): what is not in it stays as it would have been. Where `llvm-profdata` of the compiler's own
version is missing (`rustup component add llvm-tools`), the profile is left out, and that is said.
"""

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

from suite import peers  # noqa: E402
from suite.loads import Client, h2load, wrk  # noqa: E402
from suite.measure import say  # noqa: E402
from suite.processes import Process, raise_limits, stop_all  # noqa: E402

WORK = os.path.join(ROOT, "target", "train")
RAW, PROFILE = os.path.join(WORK, "raw"), os.path.join(WORK, "merged.profdata")


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def host():
    return re.search(r"host: (\S+)", output("rustc", "-vV"))[1]


def profdata():
    """The tool that belongs to the compiler; any other may not read what it writes."""
    within = os.path.join(output("rustc", "--print", "sysroot").strip(), "lib", "rustlib", "*", "bin", "llvm-profdata")
    return next(iter(glob.glob(within)), None)


def cargo(profile, flags, *arguments):
    """Builds; the flags are for the target only, so that build scripts are no part of it."""
    command = ["cargo", "build", "--profile", profile, "--target", host(), "--target-dir", WORK, *arguments]
    environment = {**os.environ, "RUSTFLAGS": " ".join([os.environ.get("RUSTFLAGS", ""), flags]).strip()}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return os.path.join(WORK, host(), profile)


def traffic(client, address, run):
    """Two seconds of each kind: what a gateway does most, in sizes and forms that no scenario measures."""
    fresh = f"{run}/{{}}"
    get = lambda path, **more: wrk(client, address, path, **more)
    get("/b/700/hot")
    get("/b/3000/hot")
    get("/b/40000/hot")
    get("/b/300000/hot")
    get("/b/700/hot", headers={"If-None-Match": '"5f3c1d9a7e"'})
    get("/b/40000/hot", headers={"Range": "bytes=100-4000"})
    get(f"/b/700/{fresh}")
    get(f"/b/3000/{fresh}")
    get(f"/b/40000/{fresh}")
    get(f"/n/700/{fresh}")
    get("/n/300000/same")
    get("/v/700/same")
    for method in ["POST", "PUT"]:
        get(f"/n/700/{fresh}", method=method, body=500)
    h2load(client, address, "/b/700/hot")
    h2load(client, address, "/n/700/hot", streams=4)


def train(programs):
    """Puts load on the instrumented gateway; it writes what it saw when it ends."""
    shutil.rmtree(RAW, ignore_errors=True)
    room = os.path.join(WORK, "room")
    shutil.rmtree(room, ignore_errors=True)
    os.makedirs(room)
    origin = peers.start_origin(room, 0, programs)
    gateway = Process(
        [
            os.path.join(programs, "larder"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream",
            f"http://{origin.address}", "--data-dir", os.path.join(room, "data"),
        ],
        0, room,
    )
    address = gateway.wait_for_output(r"data listening on http://(\S+)")
    traffic(Client(1, room, programs, 2.0), address, "train")
    gateway.child.terminate()
    gateway.child.wait(60)
    subprocess.run([profdata(), "merge", "-o", PROFILE, RAW], check=True)


def build():
    """The directory of the gateway, laid out by a profile if that can be."""
    if not profdata():
        say("without a profile: llvm-profdata is missing (`rustup component add llvm-tools`)")
        return cargo("dist", "", "--bin", "larder")
    try:
        train(cargo("release", f"-Cprofile-generate={RAW}", "--bin", "larder", "--example", "origin"))
    finally:
        stop_all()
    return cargo("dist", f"-Cprofile-use={PROFILE}", "--bin", "larder")


def main(arguments=None):
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    raise_limits()
    made = os.path.join(build(), "larder")
    target = os.path.join(ROOT, "target", "dist", "larder")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy2(made, target)
    say(f"made {os.path.relpath(target, ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
