"""Measures a scenario: servers started in front of one origin, proven, then loaded in turn, one going at a time."""

import os
import statistics
import sys
import tempfile
import time

from suite import peers
from suite.origin import counts, since
from suite.processes import Broken, Peak, prefer, stop_all
from suite.scenarios import Round

SUMMED_BY = {"resident": max, "growth": max, "origin_calls": max, "max": max, "kept": min}


def say(text):
    print(text, file=sys.stderr, flush=True)


def measure(scenario, names, client, options):
    """What is written down of a scenario: for each server its rounds and their middle, or why it has none."""
    scratch = options.disk if scenario.disk else options.scratch
    with tempfile.TemporaryDirectory(prefix="load-", dir=scratch) as directory:
        # Workers of a server that was started by root are somebody else.
        os.chmod(directory, 0o755)
        client.directory = directory
        if scenario.real_time and not prefer(True):
            say(f"{scenario.name}: without real-time priority, latencies say how the cores were shared")
        try:
            origin = peers.start_origin(directory, options.client_core, options.programs)
            site = peers.Site(
                directory, options.server_core, origin.address, scenario.megabytes, options.files, options.programs,
                scenario.body, scenario.h2, scenario.disk,
            )
            return Measurement(scenario, site, client, origin).run(names, 1 if scenario.once else options.rounds)
        finally:
            prefer(False)
            stop_all()


class Measurement:
    """One scenario under way."""

    def __init__(self, scenario, site, client, origin):
        self.scenario, self.site, self.client, self.origin = scenario, site, client, origin
        self.servers, self.rounds, self.skipped = {}, {}, {}

    def run(self, names, rounds):
        if self.scenario.once:
            # Whatever is measured here is about memory and connections: nobody else is there at all.
            for name in names:
                self.attempt(name, self.start)
                self.attempt(name, self.round, 1)
                if name in self.servers and name != peers.DIRECT:
                    self.servers[name].process.stop()
        else:
            for name in names:
                self.attempt(name, self.start)
                if name in self.servers:
                    self.halt(name)
            for number in range(rounds):
                for name in list(self.servers):
                    self.attempt(name, self.round, number + 1)
        return self.result()

    def attempt(self, name, what, *arguments):
        """Does it, unless this server has failed; if it fails now, that is its result."""
        if name in self.skipped:
            return
        try:
            what(name, *arguments)
        except (Broken, OSError) as error:
            self.skipped[name] = reason(error, self.site.directory)
            say(f"{self.scenario.name}: {name}: – {self.skipped[name]}")
            self.rounds.pop(name, None)
            if (server := self.servers.pop(name, None)) and name != peers.DIRECT:
                server.process.stop()

    def start(self, name):
        if name == peers.DIRECT:
            self.servers[name] = self.origin
            return
        server = self.servers[name] = peers.start(name, self.site)
        if name == peers.YARDSTICK:
            return
        if self.scenario.prove:
            self.scenario.prove(server, self.origin.address)
        if self.scenario.prepare:
            self.scenario.prepare(self.turn(server))

    def turn(self, server):
        return Round(server, self.client, self.origin.address, f"{time.time_ns():x}")

    def halt(self, name):
        if name != peers.DIRECT:
            self.servers[name].process.halt()

    def round(self, name, number):
        server = self.servers[name]
        server.process.go_on()
        before, seen = server.process.cpu_seconds(), counts(self.origin.address)
        started = time.monotonic()
        with Peak(server.process) as peak:
            found = self.scenario.load(self.turn(server))
        elapsed = time.monotonic() - started
        if not found["requests"]:
            raise Broken("answered nothing under load")
        server.process.check()
        cpu = server.process.cpu_seconds() - before
        seen = since(seen, counts(self.origin.address))
        self.halt(name)
        found = {name: value for name, value in found.items() if isinstance(value, (int, float))}
        found.update(figures(found, cpu, elapsed, peak, seen))
        if name == peers.DIRECT:
            # The origin is on the other core, and its own work is not what is compared.
            for one in ["cpu", "core", "resident", "growth", "per_connection", "per_stream"]:
                found.pop(one, None)
        self.rounds.setdefault(name, []).append(found)
        shown = " ".join(f"{one}={found[one]:.5g}" for one in ["rate", "cpu", "p50", "p99"] if one in found)
        say(f"{self.scenario.name}: round {number}: {name:14} {shown}")

    def result(self):
        return {
            "name": self.scenario.name,
            "title": self.scenario.title,
            "key": self.scenario.key,
            "columns": self.scenario.columns,
            "servers": {name: {"summary": middle(rounds), "rounds": rounds} for name, rounds in self.rounds.items()},
            "skipped": self.skipped,
        }


def reason(error, directory):
    """On one line, and without the name of a directory of this run."""
    return " ".join(str(error).replace(directory, "").split())[:300]


def figures(found, cpu, elapsed, peak, seen):
    """What follows from a load's numbers and from what was seen of the processes meanwhile."""
    requests = max(1, found["requests"])
    more = {
        "cpu": cpu * 1e6 / found.get("asked", requests),
        "core": cpu / elapsed * 100,
        "resident": peak.highest,
        "growth": peak.highest - peak.before,
        "origin_calls": seen["requests"],
        "from_cache": max(0.0, 100 - seen["requests"] / requests * 100),
    }
    if seen["requests"]:
        more["reuse"] = 100 - seen["connections"] / seen["requests"] * 100
    if "connections" in found:
        more["per_connection"] = (peak.highest - peak.before) / found["connections"]
        more["kept"] = found["kept"] / found["idle"] * 100
    if "streams" in found:
        more["per_stream"] = (peak.highest - peak.before) / found["streams"]
    if "bytes" in found:
        more["bytes_read"] = found["bytes"]
    return more


def middle(rounds):
    """Of each figure its median; of what is a limit, the worst."""
    names = {name for one in rounds for name in one}
    return {
        name: SUMMED_BY.get(name, statistics.median)(one[name] for one in rounds if name in one) for name in sorted(names)
    }
