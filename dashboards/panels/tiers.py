"""Where responses lie: how full each tier is, what leaves it, how fast it answers, and whether it works."""

from .grafana import BAD, FAIR, GOOD, ROUTE, dashboard, now, quantile, series, stat, steps, total

FULL = steps(GOOD, (0.9, FAIR))


def build() -> dict:
    return dashboard(
        "larder-tiers",
        "L1 is memory, L2 Redis, which nodes share, L3 the disk. A tier that fails costs hits, never answers.",
        [("All tiers", of_all()), ("L1: memory", of_l1()), ("L2: Redis", of_l2()), ("L3: disk", of_l3())],
    )


def used(instance: bool = False) -> str:
    by = " by (instance)" if instance else ""
    content, index = now("larder_l3_physical_bytes"), now("larder_l3_index_bytes")
    return f"sum{by} ({content} + {index}) / sum{by} ({now('larder_l3_bytes_max')})"


def of_all() -> list[dict]:
    l1_full = f"sum ({now('larder_l1_bytes')}) / sum ({now('larder_l1_bytes_max')})"
    hits = total("larder_requests_total", 'outcome=~"hit|stale|stale-if-error"', where=ROUTE)
    others = total("larder_tier_hits_total", by="tier", where=ROUTE)
    return [
        stat(
            "L1 in use",
            l1_full,
            "percentunit",
            "A full L1 is as it should be; what matters is what leaves it, below.",
            FULL,
        ),
        stat(
            "L3 in use",
            used(),
            "percentunit",
            "Content and index, of `l3.max_bytes`. Full is as it should be: what is used least leaves.",
            FULL,
        ),
        stat(
            "L3 at work",
            f"min ({now('larder_l3_on')})",
            "bool_on_off",
            """Off on any node: its disk fails or is full, and the tier is left alone until it works again. The log
            says why; `larder disk stats` tells more.""",
            steps(BAD, (1, GOOD)),
        ),
        stat(
            "Redis reached",
            f"min ({now('larder_redis_nodes')})",
            "none",
            """Servers of Redis that answer, on the node that reaches fewest. 0: nodes go on by themselves, without
            L2, and hear of each other's purges when Redis is back.""",
            steps(BAD, (1, GOOD)),
        ),
        series(
            "Hits by tier",
            [(f"{hits} - sum ({others})", "l1"), (others, "{{tier}}")],
            "reqps",
            "Where hits come from. L1 should do most of the work; L3 much after a restart, and for what is large.",
            stack=True,
        ),
    ]


def of_l1() -> list[dict]:
    return [
        series(
            "Size",
            [(now("larder_l1_bytes"), "{{instance}}"), (now("larder_l1_bytes_max"), "{{instance}} most")],
            "bytes",
            "Resident memory of all entries against `l1.max_bytes`.",
        ),
        series(
            "What leaves",
            [(total("larder_l1_evictions_total", by="reason"), "{{reason}}")],
            "cps",
            """`size` made room for others: many of these with a falling hit ratio mean that L1 is too small, or that
            something walks through all URLs. `replaced` is newer content, `removed` purges and invalidations.""",
            stack=True,
        ),
        series(
            "What comes",
            [(total("larder_l1_inserts_total"), "written"), (total("larder_l1_refused_total"), "too large")],
            "cps",
            "`too large` are beyond `l1.object_share_max`, and go to the disk at once where there is one.",
        ),
    ]


def of_l2() -> list[dict]:
    lookup, calls = "larder_l2_lookup_seconds", "larder_redis_calls_total"
    return [
        series(
            "Look-ups",
            [(total(f"larder_l2_{what}_total"), what) for what in ("hits", "stale", "misses")],
            "reqps",
            """Fills that asked Redis first. Hardly any hits with several nodes: their secrets differ (`secret_file`),
            or entries expire.""",
            stack=True,
        ),
        series(
            "Time of look-ups",
            [(quantile(share, lookup), f"p{share * 100:g}") for share in (0.5, 0.99)],
            "s",
            """Beyond `l2.read_timeout` (10 ms by default) a look-up is a miss. Near it: the network, or a Redis that
            is overloaded.""",
        ),
        series(
            "Calls by result",
            [(total(calls, by="result"), "{{result}}")],
            "cps",
            """Anything but `ok`: `timeout` is a slow Redis, others name what it refused. Errors cost hits, never
            answers.""",
            stack=True,
        ),
        series(
            "Time of calls, 99 of 100",
            [(quantile(0.99, "larder_redis_call_seconds", by="class"), "{{class}}")],
            "s",
            "By class: small values, large ones, and all else. If only large ones are slow, it is the network.",
        ),
        series(
            "Breakers and servers",
            [
                (now("larder_redis_breakers_open"), "{{instance}} open"),
                (now("larder_redis_nodes"), "{{instance}} servers"),
            ],
            "short",
            """An open breaker: Redis let `l2.breaker_failures` calls time out and is left alone for a moment. Nobody
            waits for it.""",
        ),
        series(
            "Network",
            [(total("larder_l2_read_bytes_total"), "read"), (total("larder_l2_written_bytes_total"), "written")],
            "Bps",
            "Values as they go over the network, compressed.",
        ),
        series(
            "Writes by result",
            [(total("larder_l2_writes_total", by="result"), "{{result}}")],
            "cps",
            """`dropped`: the queue was full (`l2.queue_bytes_max`), Redis is too slow. `fenced`: purged meanwhile,
            which is right.""",
            stack=True,
        ),
        series(
            "Waits to be written",
            [(now("larder_l2_queue_bytes"), "{{instance}}")],
            "bytes",
            "Near `l2.queue_bytes_max`, new entries are dropped.",
        ),
        series(
            "Compression of both",
            [
                (
                    f"{total(f'larder_{tier}_compressed_in_bytes_total')} / {total(f'larder_{tier}_compressed_out_bytes_total')}",
                    name,
                )
                for tier, name in (("l2", "L2"), ("l3", "L3"))
            ],
            "x",
            """How many bytes of text one stored byte stands for. Near 1: content is compressed already; it may be
            switched off.""",
        ),
        series(
            "Errors",
            [(total("larder_l2_errors_total", by="kind") + " or vector(0)", "{{kind}}")]
            + [(total("larder_redis_connect_errors_total"), "connections")],
            "cps",
            "What Redis, or the way to it, did not do.",
        ),
    ]


def of_l3() -> list[dict]:
    return [
        series(
            "Size",
            [(used(instance=True), "{{instance}}")],
            "percentunit",
            "Content and index, of `l3.max_bytes`.",
            high=1,
        ),
        series(
            "File system",
            [
                (now("larder_l3_free_bytes"), "{{instance}} free"),
                (now("larder_l3_free_bytes_min"), "{{instance}} kept free"),
            ],
            "bytes",
            """What is free where the tier lies. When it comes down to what is kept free (`l3.free_bytes_min`),
            entries leave; if others fill the disk, the tier shrinks to nothing and the purge log is next.""",
        ),
        series(
            "Entries",
            [(now("larder_l3_entries"), "{{instance}}"), (now("larder_l1_entries"), "{{instance}} in L1")],
            "short",
            "Slots on the disk (at most `l3.entries_max`) and in memory.",
        ),
        series(
            "Look-ups",
            [(total("larder_l3_hits_total"), "hits"), (total("larder_l3_misses_total"), "misses")],
            "reqps",
            """Look-ups for what memory does not have. What the disk surely lacks is known without one, so misses are
            few.""",
            stack=True,
        ),
        series(
            "Time of reads and writes",
            [
                (quantile(0.5, "larder_l3_lookup_seconds"), "read p50"),
                (quantile(0.99, "larder_l3_lookup_seconds"), "read p99"),
                (quantile(0.99, "larder_l3_commit_seconds"), "commit p99"),
            ],
            "s",
            """Beyond `l3.lookup_timeout` (250 ms) a read is a miss: the disk is then slower than most origins. Nobody
            waits for commits.""",
        ),
        series(
            "What leaves",
            [(total("larder_l3_evictions_total", by="reason") + " or vector(0)", "{{reason}}")],
            "cps",
            "`bytes` and `entries`: its own bounds. `free`: others fill the disk. `expired` is of no use any more.",
            stack=True,
        ),
        series(
            "What is not written",
            [(total("larder_l3_drops_total", by="reason") + " or vector(0)", "{{reason}}")],
            "cps",
            """`admission` was asked for only once, which spares the disk. `queue`: it is slower than what is to be
            written.""",
            stack=True,
        ),
        series(
            "Disk I/O",
            [
                (total("larder_l3_written_bytes_total"), "written"),
                (total("larder_l3_deduplicated_bytes_total"), "was there already"),
                (total("larder_l3_scrubbed_bytes_total"), "read by the scrub"),
            ],
            "Bps",
            "Content written is bounded by `l3.write_rate`, what the scrub reads by `l3.scrub_rate`.",
        ),
        series(
            "Waits to be written",
            [(now("larder_l3_queue_entries"), "{{instance}}")],
            "short",
            "Near `l3.queue_max` new entries are dropped.",
        ),
        series(
            "Errors",
            [(total("larder_l3_errors_total", by="kind") + " or vector(0)", "{{kind}}")],
            "cps",
            """`corrupt`, `record`, `damaged`: the disk lies. `full`, `read-only`, `io`: it does not take what is
            written.""",
        ),
    ]
