"""Who waits for whom, and whether purged content stays purged."""

from .grafana import BAD, GOOD, dashboard, heatmap, now, quantiles, series, stat, steps, total


def build() -> dict:
    return dashboard(
        "larder-purge",
        "Fills and those who share them; purges, their way to all nodes, and the proof that none was missed.",
        [("Coalescing", of_fills()), ("Is purged content gone?", of_safety())]
        + [("Purges", of_purges()), ("Backends and CDNs", of_messages())],
    )


def of_fills() -> list[dict]:
    joined, fills = total("larder_followers_total"), total("larder_fills_total")
    return [
        stat(
            "Requests a fill",
            f"1 + {joined} / {fills}",
            "none",
            """How many requests one origin response answers while it arrives. Far above 1 is a stampede that the
            origin did not feel.""",
            decimals=2,
        ),
        series(
            "Fills by how they ended",
            [(total("larder_fills_total", by="result"), "{{result}}")],
            "cps",
            "Origin responses on their way into the cache. `complete` were stored; others say why they were not.",
            w=10,
            stack=True,
        ),
        series(
            "Fills under way, and who waits",
            [
                (f"sum ({now('larder_fills_running')})", "fills"),
                (f"sum ({now('larder_followers_waiting')})", "requests waiting"),
                (f"sum ({now('larder_l2_waiting')})", "fills waiting for other nodes"),
            ],
            "short",
            "Many that wait for few fills: a slow URL everybody wants. `/stats` and the access lines name it.",
            w=10,
        ),
        series(
            "Waits for a response head",
            quantiles("larder_follower_wait_seconds"),
            "s",
            """What those waited who joined a fill. It follows the origin; near `fill.follow_timeout` they go to the
            origin themselves.""",
        ),
        heatmap("Waits", "larder_follower_wait_seconds", "", "The same, as a whole.", w=8),
        series(
            "Bodies on their way",
            [
                (f"sum ({now('larder_fill_memory_bytes')})", "in memory"),
                (f"sum ({now('larder_spill_bytes')})", "in files"),
            ],
            "bytes",
            """Bounded by `fill.memory_total_bytes_max` and `fill.spill_bytes_max`. At the bounds fills run as slowly
            as their readers.""",
        ),
        series(
            "Claims among nodes",
            [(total("larder_l2_leases_total", by="result"), "{{result}}")],
            "cps",
            """Who of several nodes fetches: `taken` did, `waited` and `followed` got another node's answer,
            `inherited` took over from one that died, `alone` waited long enough (`l2.follow_max`).""",
            w=24,
        ),
    ]


def of_safety() -> list[dict]:
    return [
        stat(
            "Stale reads",
            f"sum ({now('larder_fleet_stale_reads_total')})",
            "none",
            """Hits that had been purged longer before than the lease allows, of those looked at afterwards. Always 0:
            else a defect.""",
            steps(GOOD, (1, BAD)),
        ),
        stat(
            "Fenced nodes",
            f"sum ({now('larder_fleet_fenced')})",
            "none",
            "Nodes that cannot know of all purges now, and have the origin confirm what they stored (`cache.fenced`).",
            steps(GOOD, (1, BAD)),
        ),
        stat(
            "Live nodes",
            f"min ({now('larder_fleet_nodes')})",
            "none",
            "As the node sees it that sees fewest: `larder nodes`.",
        ),
        series(
            "What is left of the lease",
            [(now("larder_fleet_lease_left_seconds"), "{{instance}}")],
            "s",
            "Made anew four times in `fleet.lease` (2 s). One that sinks cannot reach Redis; at 0 its node is fenced.",
            w=6,
            low=None,
        ),
        series(
            "Proofs that failed, and hits looked at",
            [
                (total("larder_fleet_beat_failures_total"), "proofs that failed"),
                (total("larder_fleet_audits_total"), "hits looked at"),
                (total("larder_fleet_fenced_seconds_total"), "share of time fenced"),
            ],
            "short",
            "Without hits looked at, 0 stale reads mean little.",
            w=6,
        ),
    ]


def of_purges() -> list[dict]:
    return [
        series(
            "Purges called for",
            [
                (total("larder_purge_appends_total", by="mode"), "{{mode}}"),
                (total("larder_purge_scopes_total"), "scopes"),
            ],
            "cps",
            """A purge of everything costs as little as one of a URL, but empties the cache: look at the hit ratio
            after it.""",
        ),
        series(
            "From call to application on other nodes",
            quantiles("larder_fleet_propagation_seconds"),
            "s",
            """By both nodes' clocks. Milliseconds; more is a slow Redis or clocks that differ. `fleet.lease` bounds
            what it can do.""",
        ),
        series(
            "Purges by what they waited for",
            [(total("larder_fleet_acks_total", by="ack, result"), "{{ack}}: {{result}}")],
            "cps",
            "Any result but a good one: the caller was told so, and has to call again.",
            stack=True,
        ),
        series(
            "Time to make purges durable",
            quantiles("larder_purge_fsync_seconds"),
            "s",
            "The disk's fsync. Purges wait for it, requests do not.",
        ),
        series(
            "What could not be written",
            [
                (total("larder_purge_append_failures_total"), "purges refused"),
                (total("larder_purge_compaction_failures_total"), "compactions"),
                (total("larder_fleet_invalidations_dropped_total"), "invalidations others were not told"),
            ],
            "cps",
            "A refused purge was answered 503 and not done. The disk of the data directory is full or fails.",
        ),
        series(
            "Breaks of the log",
            [
                (total("larder_fleet_forks_total"), "forks"),
                (total("larder_fleet_epochs_begun_total"), "epochs"),
                (total("larder_fleet_resyncs_total", by="why"), "resync: {{why}}"),
            ],
            "cps",
            """Fail-overs of Redis that lost records, and what was done about it. Some at a fail-over are right;
            steadily is not.""",
        ),
        series(
            "Size of the logs",
            [(now("larder_fleet_log_records"), "{{instance}} records in Redis")]
            + [(now("larder_purge_table_scopes"), "{{instance}} scopes here")],
            "short",
            "Bounded by `fleet.log_max` and `purge.scopes_max`; beyond them the oldest are folded together.",
        ),
        series(
            "Invalidated by unsafe requests",
            [(total("larder_invalidated_total"), "URLs")],
            "cps",
            "What POST, PUT, DELETE and PATCH through the gateway made stale.",
        ),
    ]


def of_messages() -> list[dict]:
    return [
        series(
            "Messages of backends",
            [(total(f"larder_changes_{what}_total"), what) for what in ("applied", "rejected", "retried", "claimed")],
            "cps",
            """`rejected` were not understood; they are kept with the reason. `claimed` were taken over from a node
            that died.""",
        ),
        series(
            "Lag of messages",
            [
                (now("larder_changes_lag_seconds"), "{{instance}} age"),
                (now("larder_changes_pending"), "{{instance}} pending"),
            ],
            "short",
            """Seconds from the writing of the last message to its purge, and messages that a node has and has not
            finished.""",
        ),
        series(
            "Calls to CDNs",
            [(total(f"larder_webhook_{what}_total"), what) for what in ("sent", "failed", "retried", "dropped")]
            + [(f"sum ({now('larder_webhook_queue')})", "waiting")],
            "short",
            "`failed` and `dropped`: a CDN was not told of a purge and may serve what was purged.",
        ),
    ]
