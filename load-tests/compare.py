#!/usr/bin/env python3
"""Measures what a request costs the server: CPU microseconds, requests per second, latency.

All servers run at the same time, pinned to one core; wrk and the origin have the other. Short rounds alternate between
the servers, so that a core that changes its speed changes it for all of them. See README.md.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
TICK = os.sysconf("SC_CLK_TCK")
children = []


def spawn(command, core, **options):
    child = subprocess.Popen(["taskset", "-c", str(core), *command], text=True, start_new_session=True, **options)
    children.append(child)
    return child


def spawn_and_read(command, core, pattern):
    """Starts a process that says on its output where it listens; returns it and the first group of `pattern`."""
    log = tempfile.NamedTemporaryFile("w+", prefix="larder-load-", suffix=".log")
    child = spawn(command, core, stdout=log, stderr=subprocess.STDOUT)
    for _ in range(200):
        with open(log.name, encoding="utf-8", errors="replace") as written:
            text = written.read()
        if found := re.search(pattern, text):
            return child, found[1]
        if child.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit(f"{command[0]} does not start:\n{text}")


def stop_all():
    for child in children:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()


def family(pid):
    """The process and all below it."""
    pids = [pid]
    for one in pids:
        try:
            with open(f"/proc/{one}/task/{one}/children", encoding="ascii") as below:
                pids.extend(int(child) for child in below.read().split())
        except FileNotFoundError:
            pass
    return pids


def cpu_seconds(pid):
    ticks = 0
    for one in family(pid):
        with open(f"/proc/{one}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def render(template, directory, **values):
    with open(os.path.join(HERE, "peers", template), encoding="utf-8") as source:
        text = source.read()
    for name, value in {**values, "directory": directory}.items():
        text = text.replace(f"@{name}@", str(value))
    path = os.path.join(directory, template)
    with open(path, "w", encoding="utf-8") as target:
        target.write(text)
    return path


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url):
    for _ in range(200):
        try:
            return urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{url} does not answer")


def start_servers(options, origin, directory):
    """Name -> (process, base URL), the yardstick first."""
    servers = {}
    if options.scenario == "hit":
        servers["bare hyper"] = spawn_and_read([options.bare], options.server_core, r"listening on (\S+)")
    larder = [
        options.larder, "--config", os.path.join(HERE, "larder.toml"), "--listen", "127.0.0.1:0",
        "--admin", "127.0.0.1:0", "--upstream", origin, "--data-dir", os.path.join(directory, "data"),
    ]
    if os.path.exists(options.larder):
        servers["larder"] = spawn_and_read(larder, options.server_core, r"data listening on (http://[^\s\"]+)")
    else:
        print(f"no {options.larder}: left out", file=sys.stderr)
    authority = origin.removeprefix("http://")
    for name, template, command in [
        ("haproxy", "haproxy.cfg", ["haproxy", "-db", "-f"]),
        ("nginx", "nginx.conf", ["nginx", "-p", directory, "-c"]),
    ]:
        if not shutil.which(name) or name in options.without:
            continue
        port = free_port()
        config = render(template, directory, port=port, origin=authority)
        child = spawn([*command, config], options.server_core, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        servers[name] = (child, f"http://127.0.0.1:{port}")
    for name, (_, base) in servers.items():
        wait_for(f"{base}/warm")
        if name != "bare hyper":
            check_that_it_caches(name, base)
    return servers


def check_that_it_caches(name, base):
    """Two requests, and the second must be a hit: it has an Age, or says so."""
    for _ in range(3):
        with urllib.request.urlopen(f"{base}/hit", timeout=5) as response:
            response.read()
            fields = response.headers
    hit = fields.get("age") or "hit" in (fields.get("cache-status") or fields.get("x-cache") or "").lower()
    if not hit:
        sys.exit(f"{name} does not cache: {fields}")


def wrk(options, base):
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "--latency"]
    if options.scenario == "miss":
        command += ["-s", os.path.join(HERE, "unique.lua"), base, "--", f"{time.time_ns():x}"]
    else:
        command.append(f"{base}/hit")
    output = subprocess.run(
        ["taskset", "-c", str(options.client_core), *command], capture_output=True, text=True, check=True
    ).stdout
    if re.search(r"Non-2xx|Socket errors", output):
        sys.exit(f"errors under load:\n{output}")
    number = lambda pattern: float(re.search(pattern, output)[1])
    unit = {"us": 1, "ms": 1000, "s": 1_000_000}
    latency = lambda share: (lambda m: float(m[1]) * unit[m[2]])(re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", output))
    return {
        "requests": number(r"(\d+) requests in"),
        "rate": number(r"Requests/sec:\s+([\d.]+)"),
        "p50": latency(50),
        "p99": latency(99),
    }


def measure(options, servers):
    rounds = {name: [] for name in servers}
    for number in range(options.rounds):
        for name, (child, base) in servers.items():
            before = cpu_seconds(child.pid)
            result = wrk(options, base)
            result["cpu"] = (cpu_seconds(child.pid) - before) * 1e6 / result["requests"]
            rounds[name].append(result)
            print(f"round {number + 1}: {name:12} {result['rate']:9.0f}/s {result['cpu']:6.2f} us", file=sys.stderr)
    return rounds


def report(options, rounds):
    yardstick = next(iter(rounds))
    best = lambda name: min(one["cpu"] for one in rounds[name])
    middle = lambda name, field: statistics.median(one[field] for one in rounds[name])
    print(f"\n{options.scenario}: 1 KiB body, {options.connections} connections, {options.rounds} rounds of "
          f"{options.seconds} s; CPU per request of the server, best and median round")
    print(f"{'server':14}{'best us':>9}{'median us':>11}{'requests/s':>12}{'p50 us':>9}{'p99 us':>9}"
          f"{'x ' + yardstick:>14}")
    for name in rounds:
        ratio = best(name) / best(yardstick)
        print(f"{name:14}{best(name):9.2f}{middle(name, 'cpu'):11.2f}{middle(name, 'rate'):12.0f}"
              f"{middle(name, 'p50'):9.0f}{middle(name, 'p99'):9.0f}{ratio:14.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=["hit", "miss"])
    profile = os.environ.get("PROFILE", "release")
    target = os.path.join(ROOT, "target", "debug" if profile == "dev" else profile)
    parser.add_argument("--larder", default=os.path.join(target, "larder"))
    parser.add_argument("--bare", default=os.path.join(target, "examples", "bare"))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS", "4")))
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("SECONDS_EACH", "5")))
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out")
    options = parser.parse_args()
    for tool in ["wrk", "taskset"]:
        if not shutil.which(tool):
            sys.exit(f"{tool} is not installed")
    with tempfile.TemporaryDirectory(prefix="larder-load-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as directory:
        os.chmod(directory, 0o755)  # nginx's worker is another user when its master is root
        try:
            _, origin = spawn_and_read([options.bare], options.client_core, r"listening on (\S+)")
            report(options, measure(options, start_servers(options, origin, directory)))
        finally:
            stop_all()


if __name__ == "__main__":
    main()
