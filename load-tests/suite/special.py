"""Loads that are more than requests as fast as they are answered."""

import threading
import time
from dataclasses import replace

from suite.loads import own, wrk
from suite.origin import ask, counts, settled, since
from suite.peers import YARDSTICK
from suite.processes import Broken

CONNECTIONS, STREAMS, KEYS = 10_000, 5000, 1_000_000
TAGGED = "/t/all/100/"


def misses(r, path):
    """New keys; and of some of the last of them, how many are there afterwards."""
    found = wrk(r.client, r.server.address, path)
    if r.server.name == YARDSTICK:
        return found
    last = int(found["requests"]) - r.client.connections
    keys = range(max(1, last - 500), last, 10)
    return {**found, "stored": 100 - missing(r, [path.replace("{}", str(key)) for key in keys]) * 100}


def disk_hits(r, path, keys, size):
    """What one client waits, who finds the server idle; and what many get out of it."""
    alone = wrk(replace(r.client, connections=1, seconds=r.client.seconds / 2), r.server.address, path, keys=keys)
    many = wrk(r.client, r.server.address, path, keys=keys)
    return {
        **many, "p50": alone["p50"], "p99": alone["p99"], "throughput": many["rate"] * size,
        "asked": many["requests"] + alone["requests"],
    }


def open_model(r):
    return own(r.client, "open", r.server.address, f"/b/1024/{r.unique}/{{}}", rate=5000, seconds=max(2, r.client.seconds))


def stampede(r):
    return own(r.client, "stampede", r.server.address, f"/slow/200/16384/{r.unique}", clients=1000)


def idle(r):
    return own(
        r.client, "idle", r.server.address, "/b/1024/hit", connections=CONNECTIONS, seconds=max(2, r.client.seconds), pause=1
    )


def slow(r, path):
    return own(r.client, "slow", r.server.address, path, seconds=max(5, r.client.seconds * 5))


def sse(r):
    found = own(r.client, "sse", r.server.address, f"/sse/1000/100000?{r.unique}", streams=STREAMS, seconds=max(3, r.client.seconds))
    if found["streams"] < STREAMS:
        raise Broken(f"only {found['streams']} of {STREAMS} streams had an event")
    return {**found, "first_p50": found["first"]["p50"], "first_p99": found["first"]["p99"]}


def fill_tagged(r):
    return own(r.client, "fill", r.server.address, TAGGED + "{}", keys=KEYS)


def purge(r):
    """Hits on another key at a fixed rate: for a while, and again while the purge is asked for and answered."""
    present = 1 - missing(r, some_tagged(0))
    seconds = max(3, r.client.seconds)
    hits = lambda: own(r.client, "open", r.server.address, "/b/1024/hot", rate=5000, seconds=seconds)
    before = hits()
    took = []
    purging = threading.Thread(target=lambda: took.append(purge_after(1, r.server)))
    purging.start()
    during = hits()
    purging.join()
    if not took:
        raise Broken("the purge failed")
    return {**during, "purge_ms": took[0] * 1000, "present": present * 100, "gone": missing(r, some_tagged(7)) * 100, "p99_before": before["p99"]}


def purge_after(seconds, server):
    time.sleep(seconds)
    start = time.monotonic()
    server.purge("all")
    return time.monotonic() - start


def some_tagged(offset):
    """Some of the keys, all over."""
    return [f"{TAGGED}{key}" for key in range(offset, KEYS, KEYS // 500)]


def missing(r, paths):
    """Share of some paths that the origin is asked for."""
    before = settled(r.origin)
    for path in paths:
        ask(r.server.address, path)
    return since(before, counts(r.origin))["requests"] / max(1, len(paths))
