#!/usr/bin/env python3
"""Several nodes over Redis: how long a hit in L2 takes, how soon a purge has reached all nodes, what a hanging server costs, how
soon what a killed one had is found again, and what clients notice of a Redis that is gone.

    python3 load-tests/fleet.py [--profile release] [--rate 5000] [--seconds 5] [--output run.json]

Redis, two or three gateways, origin and load share the machine. Every read of L2 is of another key, which another node has
fetched: no memory and no disk of the node that is asked has it. Beside it stands what the least of Redis can be: PING over
one connection by redis-benchmark at the same rate of arrival is not offered, so its figures are of a closed loop.
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Process:
    def __init__(self, command, said=None, **options):
        output = subprocess.PIPE if said else subprocess.DEVNULL
        self.process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, text=True, **options)
        self.addresses = []
        for pattern in said or []:
            for line in self.process.stdout:
                if found := re.search(pattern, line):
                    self.addresses.append(found[1])
                    break
            else:
                raise SystemExit(f"{command[0]} ended with {self.process.wait()}")
        if said:
            self.lines = [0]
            threading.Thread(target=self.count_lines, daemon=True).start()

    def count_lines(self):
        for _ in self.process.stdout:
            self.lines[0] += 1

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        self.process.kill()
        self.process.wait()


def free_port():
    while True:
        with socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port < 50000:
                try:
                    bus.bind(("127.0.0.1", port + 10000))
                    return port
                except OSError:
                    pass


def redis(directory, *options):
    port = free_port()
    place = pathlib.Path(directory, str(port))
    place.mkdir()
    server = Process(["redis-server", "--port", port, "--save", "", "--appendonly", "no", *options], cwd=place)
    server.port = port
    for _ in range(500):
        if cli(port, "PING").strip() == "PONG":
            return server
        time.sleep(0.01)
    raise SystemExit("redis-server does not answer")


def cli(port, *command):
    return subprocess.run(["redis-cli", "-p", str(port), *command], capture_output=True, text=True).stdout


def cluster(directory):
    nodes = [redis(directory, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no") for _ in range(6)]
    command = ["redis-cli", "--cluster", "create", *(f"127.0.0.1:{node.port}" for node in nodes), "--cluster-replicas", "1", "--cluster-yes"]
    subprocess.run(command, check=True, capture_output=True)
    while not all("cluster_state:ok" in cli(node.port, "cluster", "info") for node in nodes):
        time.sleep(0.05)
    return nodes


def gateway(binary, directory, name, upstream, urls):
    config = pathlib.Path(directory, f"{name}.toml")
    secret = pathlib.Path(directory, "secret")
    secret.write_bytes(b"7" * 32)
    config.write_text(f'secret_file = "{secret}"\n[l2]\nurl = {json.dumps(urls)}\n[l3]\nmax_bytes = 0\n[log]\naccess = false\n')
    command = [binary, "--config", config, "--data-dir", pathlib.Path(directory, name), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", upstream]
    started = Process(command, [r"data listening on (http://\S+?)\"?[,} ]*$", r"admin listening on (http://\S+?)\"?[,} ]*$"])
    started.data, started.admin = started.addresses
    while (fleet := get(f"{started.admin}/nodes"))["fenced"]:
        time.sleep(0.05)
    return started


def get(url):
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def post(url, call):
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(call).encode(), method="POST")) as answer:
        return json.load(answer)


def load(binary, *arguments):
    return json.loads(subprocess.run([binary, *map(str, arguments)], check=True, capture_output=True, text=True).stdout)


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def spread(values):
    return {"p50_ms": round(statistics.median(values), 3), "p99_ms": round(quantile(values, 0.99), 3), "count": len(values)}


def l2_hits(tools, a, b, path, rate, seconds):
    """Fills through one node, then reads each key once through the other."""
    keys = int(rate * seconds)
    # No faster than is written behind: what finds the queue full is not shared.
    load(tools["load"], "fill", f"{a.data}{path}", "--keys", keys, "--connections", 4)
    time.sleep(1)
    before = get(f"{b.admin}/stats")["l2"]
    read = load(tools["load"], "open", f"{b.data}{path}", "--rate", rate, "--seconds", seconds)
    after = get(f"{b.admin}/stats")["l2"]
    return {**read, "hits": after["hits"] - before["hits"], "keys": keys}


def recovery(tools, servers, a, b, keys=4000, rate=250):
    """Kills a master of values while keys that one node has filled are read through another, each once: when the last of them
    was not found, from the moment on at which the replica was the master."""
    load(tools["load"], "fill", f"{a.data}/u/1024/k{{}}", "--keys", keys)
    time.sleep(1.5)
    slot = int(cli(servers[0].port, "cluster", "keyslot", "{larder.fleet}:log"))
    killed = next(server for server in servers if holds(server, slot) is False)
    own = next(line.split()[0] for line in cli(killed.port, "cluster", "nodes").splitlines() if "myself" in line)
    members = [line.split() for line in cli(servers[0].port, "cluster", "nodes").splitlines()]
    heir = next(int(member[1].split(":")[1].split("@")[0]) for member in members if member[3] == own)
    recovered = []

    def watch():
        while not recovered:
            if cli(heir, "role").startswith("master"):
                recovered.append(time.monotonic())
            time.sleep(0.005)

    start = time.monotonic()
    watching = threading.Thread(target=watch)
    watching.start()
    outcomes, errors, is_killed = [], 0, False
    connection = http.client.HTTPConnection(b.data.removeprefix("http://"))
    for number in range(keys):
        time.sleep(max(0, start + number / rate - time.monotonic()))
        if not is_killed and number == rate:
            killed.signal(signal.SIGKILL)
            is_killed = True
        connection.request("GET", f"/u/1024/k{number}")
        answer = connection.getresponse()
        answer.read()
        errors += answer.status != 200
        outcomes.append((time.monotonic(), "hit" in (answer.getheader("cache-status") or "")))
    watching.join()
    misses = [when for when, hit in outcomes if not hit]
    last = max(misses, default=start)
    return {
        "errors": errors,
        "misses": len(misses),
        "cluster_recovered_after_s": round(recovered[0] - start - 1, 3),
        "last_miss_after_recovery_s": round(last - recovered[0], 3),
        "reads_after_it": sum(when > last for when, _ in outcomes),
    }


def gone(tools, node, server, seconds=60, rate=2000):
    """Redis ends while what memory holds is asked for: what clients see of it in a minute, and how much is written to the log."""
    load(tools["load"], "fill", f"{node.data}/u/1024/g{{}}", "--keys", 1000)
    # One connection: those that nobody uses for a minute are closed.
    before, lines = get(f"{node.admin}/stats"), node.lines[0]
    killer = threading.Timer(2, lambda: server.signal(signal.SIGKILL))
    killer.start()
    url = f"{node.data}/u/1024/g{{}}"
    read = load(tools["load"], "open", url, "--rate", rate, "--seconds", seconds + 2, "--keys", 1000, "--connections", 1)
    after = get(f"{node.admin}/stats")
    hits = after["requests"].get("hit", 0) - before["requests"].get("hit", 0)
    return {**read, "hits": hits, "hit_ratio": round(hits / read["requests"], 5), "log_lines": node.lines[0] - lines}


def holds(server, slot):
    """Whether a master has that slot; nothing, of a replica."""
    own = next(line for line in cli(server.port, "cluster", "nodes").splitlines() if "myself" in line)
    if "master" not in own:
        return None
    ranges = [part.split("-") for part in own.split()[8:] if part[0].isdigit()]
    return any(int(part[0]) <= slot <= int(part[-1]) for part in ranges)


def propagation(nodes, count):
    """From the call of a purge to its application on all nodes, as the receipt has it; and to the log alone."""
    took = {"log": [], "fleet": []}
    for number in range(count):
        for ack in took:
            receipt = post(f"{nodes[number % len(nodes)].admin}/purge", {"tags": [f"t{number}"], "ack": ack})
            took[ack].append(receipt["duration_ms"])
    return {ack: spread(values) for ack, values in took.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="release")
    parser.add_argument("--rate", type=float, default=5000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--purges", type=int, default=500)
    parser.add_argument("--gone", type=float, default=60, help="seconds without Redis")
    parser.add_argument("--output", type=pathlib.Path)
    options = parser.parse_args()
    build = ["cargo", "build", "--profile", options.profile, "--bin", "larder", "--example", "load", "--example", "origin"]
    subprocess.run(build, check=True, cwd=ROOT)
    target = ROOT / "target" / ("debug" if options.profile == "dev" else options.profile)
    tools = {"larder": target / "larder", "load": target / "examples/load", "origin": target / "examples/origin"}
    directory = tempfile.mkdtemp()
    running, result = [], {}
    try:
        origin = Process([tools["origin"]], [r"listening on (http://\S+)"])
        running.append(origin)
        upstream = origin.addresses[0]
        single = redis(directory)
        running.append(single)
        nodes = [gateway(tools["larder"], directory, f"single-{n}", upstream, [f"redis://127.0.0.1:{single.port}"]) for n in range(3)]
        running.extend(nodes)
        for size in (1024, 16384):
            result[f"l2 hit {size} B"] = l2_hits(tools, nodes[0], nodes[1], f"/u/{size}/{{}}", options.rate, options.seconds)
        result["purge, 3 nodes"] = propagation(nodes, options.purges)
        result["Redis gone"] = gone(tools, nodes[0], single, options.gone)
        for node in nodes:
            node.stop()
        servers = cluster(directory)
        running.extend(servers)
        urls = [f"redis://127.0.0.1:{server.port}" for server in servers]
        nodes = [gateway(tools["larder"], directory, f"cluster-{n}", upstream, urls) for n in range(3)]
        running.extend(nodes)
        result["l2 hit 1024 B, cluster"] = l2_hits(tools, nodes[0], nodes[1], "/u/1024/c{}", options.rate, options.seconds)
        result["purge, 3 nodes, cluster"] = propagation(nodes, options.purges)
        rate = options.rate / 5
        calm = load(tools["load"], "open", f"{nodes[2].data}/u/1024/calm{{}}", "--rate", rate, "--seconds", options.seconds)
        # One that has no part of the log: what is measured is what a hanging shard of values costs.
        slot = int(cli(servers[0].port, "cluster", "keyslot", "{larder.fleet}:log"))
        hung = next(server for server in servers if holds(server, slot) is False)
        hung.signal(signal.SIGSTOP)
        hanging = load(tools["load"], "open", f"{nodes[2].data}/u/1024/hung{{}}", "--rate", rate, "--seconds", min(options.seconds, 1.8))
        hung.signal(signal.SIGCONT)
        result["miss, all well"], result["miss, one of three masters hangs"] = calm, hanging
        time.sleep(5)
        result["one of three masters killed"] = recovery(tools, servers, nodes[0], nodes[1])
    finally:
        for process in reversed(running):
            process.stop()
        shutil.rmtree(directory, ignore_errors=True)
    for name, figures in result.items():
        print(f"{name}: {json.dumps(figures)}")
    if options.output:
        options.output.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
