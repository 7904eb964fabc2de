#!/usr/bin/env python3
"""Counts the instructions a request costs the gateway, and fails where they are many more than they were.

The gateway runs under callgrind on one core, with the bare server as its origin. Every kind of request is sent COUNT
times in a first run; in one further run each, a kind is sent twice as often. The difference, divided by COUNT, is what
one such request costs: start and end of the process are in both runs. The kernel's work is not counted, and neither is
waiting, so the figures hardly depend on the machine or on what else it does.

What was measured last is in measured.toml, for the dev profile that the tests have built. `make instructions UPDATE=1`
writes it anew.
"""

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MEASURED = os.path.join(HERE, "measured.toml")
COUNT = 1500
# What a figure may grow by before somebody has to say why.
SLACK = 1.3
PATIENCE = 60
SETTINGS = '[log]\naccess = false\n[l1]\nmax_bytes = "256MB"\n'
HEADER = """\
# Instructions per request, dev profile, as `make instructions UPDATE=1` measured them. `make instructions` fails above
# 1.3 times these. A commit that changes them says why.
"""


def hit(_):
    return "/hit", "", b"200 OK", b"; hit"


def not_modified(_):
    return "/hit", 'if-none-match: "5f3c1d9a7e"\r\n', b"304 Not Modified", b"; hit"


def stored_miss(number):
    return f"/miss/{number}", "", b"200 OK", b"; stored"


KINDS = {"hit": hit, "not-modified": not_modified, "stored-miss": stored_miss}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "debug")
    parser.add_argument("--larder", default=os.path.join(target, "larder"), help="the gateway (%(default)s)")
    parser.add_argument("--bare", default=os.path.join(target, "examples", "bare"), help="its origin (%(default)s)")
    parser.add_argument("--update", action="store_true", help="write what is measured to measured.toml")
    options = parser.parse_args()
    figures = measure(options)
    if options.update:
        write(figures)
    sys.exit(report(figures))


def measure(options):
    with served([options.bare], r"listening on http://(\S+)") as (_, origin):
        once = {kind: COUNT for kind in KINDS}
        base = instructions(options, origin, once)
        return {kind: (instructions(options, origin, once | {kind: 2 * COUNT}) - base) // COUNT for kind in KINDS}


def instructions(options, origin, counts):
    """All that the gateway executes, from start to end, with so many requests of each kind."""
    with tempfile.TemporaryDirectory(prefix="larder-instructions-") as directory:
        settings = os.path.join(directory, "larder.toml")
        with open(settings, "w", encoding="utf-8") as file:
            file.write(SETTINGS)
        command = [
            "valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/callgrind.out", "--dump-line=no",
            options.larder, "--config", settings, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
            "--upstream", f"http://{origin}", "--data-dir", os.path.join(directory, "data"),
        ]
        with served(command, r"data listening on http://(\S+)") as (gateway, address):
            talk(address, counts)
            gateway.send_signal(signal.SIGTERM)
            gateway.wait(PATIENCE)
            text = output(gateway)
    collected = re.search(r"Collected : (\d+)", text)
    if not collected:
        sys.exit(f"callgrind did not count:\n{text}")
    return int(collected[1])


def talk(address, counts):
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # What a hit needs is stored first.
        ask(connection, "/hit", "")
        for kind, count in counts.items():
            for number in range(count):
                path, fields, status, outcome = KINDS[kind](number)
                head = ask(connection, path, fields)
                if status not in head or outcome not in head:
                    sys.exit(f"{kind}: not the answer expected:\n{head.decode(errors='replace')}")


def ask(connection, path, fields):
    """Sends a request; the head of its answer."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += received(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = 0
    if b" 304 " not in head[:16]:
        length = int(re.search(rb"(?i)\r\ncontent-length: (\d+)", head)[1])
    while len(body) < length:
        body += received(connection)
    return head


def received(connection):
    data = connection.recv(65536)
    if not data:
        sys.exit("the gateway closed the connection")
    return data


@contextlib.contextmanager
def served(command, pattern):
    """A process on one core, and where it says it listens."""
    core = {min(os.sched_getaffinity(0))}
    log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
    try:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=lambda: os.sched_setaffinity(0, core)
        )
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not there: `make tools` installs valgrind, `cargo build` makes the rest")
    process.log = log
    try:
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, output(process))):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{command[0]} does not start:\n{output(process)}")
            time.sleep(0.05)
        yield process, found[1]
    finally:
        process.kill()
        process.wait()
        log.close()


def output(process):
    process.log.seek(0)
    return process.log.read()


def write(figures):
    with open(MEASURED, "w", encoding="utf-8") as file:
        file.write(HEADER)
        file.writelines(f"{kind} = {figure}\n" for kind, figure in figures.items())


def report(figures):
    """Says what was found; 1 where a figure is above its bound."""
    with open(MEASURED, "rb") as file:
        measured = tomllib.load(file)
    status = 0
    for kind, figure in figures.items():
        bound = int(measured[kind] * SLACK)
        print(f"instructions: {kind} {figure:,} (last measured {measured[kind]:,}, bound {bound:,})")
        if figure > bound:
            status = 1
            print(
                f"instructions: one {kind} takes {figure / measured[kind]:.2f} times what it took when "
                f"tests/instructions/measured.toml was written. If that is meant, run `make instructions UPDATE=1` "
                f"and commit the file with the reason.",
                file=sys.stderr,
            )
        elif figure * SLACK < measured[kind]:
            print(f"instructions: {kind} has become cheaper; `make instructions UPDATE=1` keeps it so")
    return status


if __name__ == "__main__":
    main()
