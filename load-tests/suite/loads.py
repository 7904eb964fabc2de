"""What puts load on a server: wrk, h2load and examples/load.rs, each giving the same few numbers."""

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass

from suite.processes import Broken, priority

LUA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "wrk.lua")
UNIT = {"us": 1, "ms": 1000, "s": 1_000_000, "m": 60_000_000}


@dataclass
class Client:
    """Where load comes from, and for how long."""

    core: int
    directory: str
    programs: str
    seconds: float
    connections: int = 64

    def run(self, command, seconds=600):
        try:
            done = subprocess.run(
                [*priority, "taskset", "-c", str(self.core), *command], capture_output=True, text=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise Broken(f"{os.path.basename(command[0])} was not answered in {seconds} s") from error
        if done.returncode:
            raise Broken(f"{os.path.basename(command[0])}: {(done.stderr or done.stdout)[-500:]}")
        return done.stdout


def wrk(client, address, path, method="GET", headers=None, body=0, keys=0):
    """`{}` in the path becomes a number: a new one each time, or one of `keys` in turn."""
    command = ["wrk", "-t1", f"-c{client.connections}", f"-d{max(1, round(client.seconds))}s", "--latency", "--timeout", "30s"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    if "{}" in path or method != "GET":
        command += ["-s", LUA, f"http://{address}/", "--", method, path, str(body), str(keys)]
    else:
        command.append(f"http://{address}{path}")
    output = client.run(command)
    if found := re.search(r"Non-2xx.*|Socket errors.*", output):
        raise Broken(f"errors under load: {found[0].strip()}")
    number = lambda pattern: float(re.search(pattern, output)[1])
    latency = lambda share: (lambda m: float(m[1]) * UNIT[m[2]])(re.search(rf"{share}%\s+([\d.]+)(us|ms|s|m)", output))
    return {
        "requests": number(r"(\d+) requests in"), "rate": number(r"Requests/sec:\s+([\d.]+)"),
        "p50": latency(50), "p99": latency(99),
    }


def h2load(client, address, path, streams=16):
    log = os.path.join(client.directory, f"h2load-{time.time_ns()}.log")
    connections = max(1, client.connections // streams)
    output = client.run([
        "h2load", f"-c{connections}", f"-m{streams}", "-t1", f"-D{max(1, round(client.seconds))}", f"--log-file={log}",
        f"http://{address}{path}",
    ])
    try:
        with open(log, encoding="ascii") as lines:
            entries = [line.split() for line in lines]
    finally:
        os.unlink(log)
    latencies = sorted(int(entry[2]) for entry in entries if entry[1] == "200")
    failed = int(re.search(r"(\d+) failed", output)[1])
    # At the end of the time, requests under way are given up; that is no failure of the server.
    if not latencies or failed > client.connections or len(latencies) < len(entries) - client.connections:
        raise Broken(f"does not answer cleartext HTTP/2: {len(latencies)} of {len(entries)} requests")
    seconds = float(re.search(r"finished in ([\d.]+)s", output)[1])
    return {
        "requests": len(latencies), "rate": len(latencies) / seconds,
        "p50": latencies[len(latencies) // 2], "p99": latencies[len(latencies) * 99 // 100],
    }


def own(client, mode, address, path, errors_allowed=False, **options):
    """examples/load.rs."""
    command = [os.path.join(client.programs, "examples", "load"), mode, f"http://{address}{path}"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    found = json.loads(client.run(command))
    if found["errors"] and not errors_allowed:
        raise Broken(f"errors under load: {found['errors']} of {found['requests']}: {found['error_kinds']}")
    return {**found, **{name: found["latency"][name] for name in ["p50", "p99", "p999", "max"]}}
