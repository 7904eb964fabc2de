"""The scenarios: what is asked for, how it is proven, how it is loaded, and which figures of it are shown."""

from dataclasses import dataclass, field

from suite import proofs, special
from suite.loads import h2load, own, wrk

KIB, MIB = 1024, 1024 * 1024
USUAL = ["cpu", "to_best", "to_bare", "rate", "p50", "p99", "resident"]
DISK = "page cache warm; latency of one client, rate of 64"
HALF_WAY = "bytes=524288-525311"


@dataclass
class Round:
    """One measurement: of which server, how, and a text nobody used before."""

    server: object
    client: object
    origin: str
    unique: str


@dataclass
class Scenario:
    """`load` measures one round; `prove` and `prepare` come before the first one."""

    name: str
    title: str
    load: object
    prove: object = None
    prepare: object = None
    columns: list = field(default_factory=lambda: list(USUAL))
    # Which column the ratios and the picture are of; the smaller, the better.
    key: str = "cpu"
    short: bool = False
    megabytes: int = 256
    body: int = KIB
    h2: bool = False
    bare: bool = True
    direct: bool = False
    # One round only, on a server that has seen nothing else.
    once: bool = False
    # Where it is about latency: nobody waits for a slice of time.
    real_time: bool = False
    # Caches are on a disk, with next to nothing in memory; those that can do so are named.
    disk: bool = False
    servers: tuple = ()


def hit(name, title, size, short=False):
    path = f"/b/{size}/hit"
    return Scenario(
        name, title, short=short, body=size,
        prove=lambda server, origin: proofs.caches(server, origin, path),
        load=lambda r: wrk(r.client, r.server.address, path),
    )


def zipf(name, title, keys, size, megabytes):
    path = f"/b/{size}/key/{{}}"
    return Scenario(
        name, title, megabytes=megabytes, columns=[*USUAL, "from_cache"],
        prove=lambda server, origin: proofs.caches(server, origin, f"/b/{size}/proof"),
        prepare=lambda r: own(r.client, "fill", r.server.address, path, keys=keys),
        load=lambda r: own(
            r.client, "zipf", r.server.address, path, keys=keys, seconds=r.client.seconds, seed=int(r.unique, 16)
        ),
    )


def disk_hit(name, title, keys, size, kind="u"):
    """From the disk, whose pages are in memory: `keys` are more than a server has memory for, and asked for in turn.

    Each has content of its own: the same under many keys would be one file to who stores by content.
    """
    path = f"/{kind}/{size}/{{}}"
    return Scenario(
        name, title, body=size, megabytes=1024, disk=True, servers=("larder", "nginx", "trafficserver"),
        columns=["p50", "p99", "rate", "throughput", *USUAL[:3], "from_cache", "resident"],
        prove=lambda server, origin: proofs.keeps(server, origin, path, keys),
        load=lambda r: special.disk_hits(r, path, keys, size),
    )


def passing(name, title, size, short=False, method="GET", sent=0):
    # Some keys, since caches that let one request wait for another with the same key do so here in vain.
    path = f"/n/{size}/{{}}"
    request = {"method": method, "body": b"x" * sent} if sent else {}
    return Scenario(
        name, title, short=short, body=size, columns=[*USUAL, "reuse"],
        prove=lambda server, origin: proofs.passes(server, origin, f"/n/{size}/proof", **request),
        load=lambda r: wrk(r.client, r.server.address, path, method=method, body=sent, keys=1000),
    )


def miss(name, title, size, short=False):
    return Scenario(
        name, title, short=short, body=size, columns=[*USUAL, "stored", "reuse"],
        prove=lambda server, origin: proofs.stores(server, origin, f"/b/{size}/proof"),
        load=lambda r: special.misses(r, f"/b/{size}/{r.unique}/{{}}"),
    )


SCENARIOS = [
    hit("hit-1k", "Hit, 1 KiB, one key", KIB, short=True),
    hit("hit-16k", "Hit, 16 KiB, one key", 16 * KIB),
    hit("hit-64k", "Hit, 64 KiB, one key", 64 * KIB, short=True),
    hit("hit-1m", "Hit, 1 MiB, one key", MIB, short=True),
    zipf("hit-zipf-10k", "Hit, 512 bytes, Zipf over 10,000 keys", 10_000, 512, 256),
    zipf("hit-zipf-1m", "Hit, 256 bytes, Zipf over 1,000,000 keys, 1 GiB of cache", 1_000_000, 256, 1024),
    disk_hit("hit-l3-64k", f"Hit on the disk, 64 KiB, 2,000 keys, {DISK}", 2000, 64 * KIB),
    disk_hit("hit-l3-text", f"Hit on the disk, 64 KiB of text, 2,000 keys, {DISK}", 2000, 64 * KIB, "w"),
    disk_hit("hit-l3-1m", f"Hit on the disk, 1 MiB, 200 keys, {DISK}", 200, MIB),
    Scenario(
        "hit-h2", "Hit, 1 KiB, cleartext HTTP/2, 16 streams a connection", h2=True, short=True,
        prove=lambda server, origin: proofs.speaks_h2(server, origin, "/b/1024/hit"),
        load=lambda r: h2load(r.client, r.server.h2, "/b/1024/hit"),
    ),
    Scenario(
        "conditional", "Conditional request answered 304 from the cache, 1 KiB", short=True,
        prove=lambda server, origin: proofs.conditional(server, origin, "/b/1024/hit"),
        # Not wrk, which waits for a body where a 304 says how long that of a 200 would be.
        load=lambda r: own(
            r.client, "zipf", r.server.address, "/b/1024/hit", keys=1, seconds=r.client.seconds,
            field=f"If-None-Match: {proofs.ENTITY_TAG}",
        ),
    ),
    Scenario(
        "range", "Range of 1 KiB of a cached 1 MiB",
        prove=lambda server, origin: proofs.ranges(server, origin, "/b/1048576/range", HALF_WAY),
        load=lambda r: wrk(r.client, r.server.address, "/b/1048576/range", headers={"Range": HALF_WAY}),
    ),
    miss("miss-1k", "Miss that is stored, 1 KiB, every key new", KIB, short=True),
    miss("miss-64k", "Miss that is stored, 64 KiB, every key new", 64 * KIB),
    passing("pass-1k", "Pass-through (no-store), 1 KiB", KIB, short=True),
    passing("pass-1m", "Pass-through (no-store), 1 MiB", MIB),
    passing("pass-post", "Pass-through, POST of 256 bytes, answer of 1 KiB", KIB, method="POST", sent=256),
    Scenario(
        "revalidate", "Revalidation (max-age=0, the origin says 304), 1 KiB, 1,000 keys",
        prove=lambda server, origin: proofs.revalidates(server, origin, "/v/1024/proof"),
        load=lambda r: wrk(r.client, r.server.address, "/v/1024/{}", keys=1000), columns=[*USUAL, "reuse"],
    ),
    Scenario(
        "open-5000", "Misses at 5,000 a second whatever happens; latency from the moment each was due",
        load=special.open_model, prove=lambda server, origin: proofs.stores(server, origin, "/b/1024/proof"),
        key="p99", short=True, bare=False, direct=True, real_time=True,
        columns=["p50", "p99", "p999", "added_p50", "added_p99", "reuse", "cpu", "resident"],
    ),
    Scenario(
        "stampede", "1,000 clients ask at once for one cold key (16 KiB) that takes the origin 200 ms",
        load=special.stampede, key="p99", short=True, bare=False,
        prove=lambda server, origin: proofs.stores(server, origin, "/slow/1/1024/proof"),
        columns=["origin_calls", "p50", "p99", "max", "resident"],
    ),
    Scenario(
        "idle", "10,000 kept-alive connections, 500 of them active (hits, 1 KiB)",
        load=special.idle, prove=lambda server, origin: proofs.caches(server, origin, "/b/1024/hit"), once=True,
        columns=["per_connection", "kept", "cpu", "to_best", "to_bare", "rate", "p50", "p99", "resident"],
    ),
    Scenario(
        "slow-pass", "1,000 clients read 10 MiB each (no-store) at 10 KiB/s",
        load=lambda r: special.slow(r, "/n/10485760/slow/{}"), once=True, bare=False, key="growth",
        prove=lambda server, origin: proofs.passes(server, origin, "/n/1024/proof"),
        columns=["growth", "to_best", "core", "bytes_read", "resident"],
    ),
    Scenario(
        "slow-store", "1,000 clients read 10 MiB each (storable, each another key) at 10 KiB/s",
        load=lambda r: special.slow(r, "/b/10485760/slow/{}"), once=True, bare=False, key="growth",
        prove=lambda server, origin: proofs.stores(server, origin, "/b/1024/proof"),
        columns=["growth", "to_best", "core", "bytes_read", "resident"],
    ),
    Scenario(
        "purge", "Purge of 1,000,000 entries by one tag, under 5,000 hits a second on another key",
        load=special.purge, prepare=special.fill_tagged, once=True, bare=False, megabytes=1024, key="purge_ms",
        prove=lambda server, origin: proofs.purges(server, origin, "/t/proof/100/proof"),
        columns=["purge_ms", "present", "gone", "p99_before", "p99", "max", "resident"],
    ),
    Scenario(
        "sse", "5,000 event streams, an event a second each: age of events, and time to the first one",
        load=special.sse, once=True, bare=False, direct=True, key="p99",
        prove=lambda server, origin: proofs.answers(server, origin, "/sse/10/3"),
        columns=["first_p50", "first_p99", "p50", "p99", "added_first_p50", "added_p50", "added_p99", "core", "per_stream", "resident"],
    ),
]


def named(name):
    return next((scenario for scenario in SCENARIOS if scenario.name == name), None)
