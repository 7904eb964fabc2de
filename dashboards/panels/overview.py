"""Whether the cache earns its place, in the first row; and where to look when it does not."""

from .grafana import BAD, FAIR, GOOD, ROUTE, dashboard, heatmap, now, quantile, quantiles, series, stat, steps, total

HITS = 'outcome=~"hit|stale|stale-if-error"'
LOOKED_UP = 'outcome!~"pass|error|limited"'
SPARED = 'outcome=~"hit|stale|stale-if-error|collapsed"'
FAILED, RESPONSES = 'status="5xx"', "larder_responses_total"
REQUESTS, DURATION = "larder_requests_total", "larder_request_duration_seconds"
ALERTS = 'count(ALERTS{alertname=~"Larder.*",alertstate="firing",job=~"$job"}) or vector(0)'


def requests(labels: str = "", by: str = "") -> str:
    return total(REQUESTS, labels, by, ROUTE)


def from_memory() -> str:
    """What other tiers answered is counted beside the outcomes, not within them."""
    return f"{requests(HITS)} - {total('larder_tier_hits_total', where=ROUTE)}"


def build() -> dict:
    return dashboard(
        "larder-overview",
        "Does the cache earn its place? The first row says so; each row below says why.",
        [("Does it earn its place?", first_row()), ("Requests", of_requests()), ("Latency", of_latency())]
        + [("Origin", of_origin()), ("Bytes and errors", of_bytes()), ("Who asks", of_callers())],
    )


def first_row() -> list[dict]:
    return [
        stat(
            "Hit ratio",
            f"{requests(HITS)} / {requests(LOOKED_UP)}",
            "percentunit",
            """Share of the requests the cache could have answered that it did answer. A sudden fall is a purge, a
            deployment that changed Cache-Control or Vary, or a tier that is gone: `larder explain URL` says why a
            URL is not a hit.""",
            steps(BAD, (0.3, FAIR), (0.6, GOOD)),
        ),
        stat(
            "Origin load avoided",
            f"{requests(SPARED)} / {requests()}",
            "percentunit",
            """Share of all requests that cost the origin nothing of their own: hits, and requests that joined another
            one's fill. This is what the origin would have to bear if the gateway were taken away.""",
            steps(BAD, (0.3, FAIR), (0.6, GOOD)),
        ),
        stat(
            "Median time: hit, and from the origin",
            [
                (quantile(0.5, DURATION, HITS), "hit"),
                (quantile(0.5, DURATION, 'outcome=~"miss|expired|pass"'), "origin"),
            ],
            "s",
            """What a client waits for a hit and for what comes from the origin. The difference is what a hit gives
            its client. Hits above some milliseconds: look at the latency by tier below.""",
        ),
        stat(
            "Server errors",
            f"{total(RESPONSES, FAILED, where=ROUTE)} / {total(RESPONSES, where=ROUTE)}",
            "percentunit",
            """Share of answers with a status of 500 or above, the origin's own and the gateway's. The rows on origin
            and errors say whose they are.""",
            steps(GOOD, (0.01, FAIR), (0.05, BAD)),
            decimals=2,
        ),
        stat(
            "Saved on models",
            'sum(increase(larder_llm_cost_dollars_total{job=~"$job",instance=~"$instance",route=~"$route",account="saved"}'
            "[$__range])) or vector(0)",
            "currencyUSD",
            """Price of the calls to language models in the chosen time that were not paid for, because their answers
            were stored or shared. 0 where no model is called, or its price is not known (`providers.prices`).""",
        ),
        stat(
            "Alerts",
            ALERTS,
            "none",
            "Alerts of these rules that are firing. Each names the entry of docs/RUNBOOK.md that says what to do.",
            steps(GOOD, (1, BAD)),
        ),
    ]


def of_requests() -> list[dict]:
    by_tier = lambda tier: total("larder_tier_hits_total", f'tier="{tier}"', where=ROUTE)  # noqa: E731
    return [
        series(
            "Requests by outcome",
            [(requests(by="outcome"), "{{outcome}}")],
            "reqps",
            """`hit` and `stale` cost the origin nothing at once, `collapsed` shared another request's fill, `miss`
            and `expired` fetched. Much `hit-for-miss` or `pass`: answers that may not be stored; `/explain` says
            why.""",
            stack=True,
        ),
        series(
            "Hit ratio by route",
            [(f"{requests(HITS, 'route')} / {requests(LOOKED_UP, 'route')}", "{{route}}")],
            "percentunit",
            """One route that falls is its origin's headers, a purge of it, or new traffic. All at once: a tier, or
            the gateway.""",
            high=1,
        ),
        series(
            "Share answered by each tier",
            [
                (f"({from_memory()}) / {requests(LOOKED_UP)}", "L1 memory"),
                (f"({by_tier('l2')} or vector(0)) / {requests(LOOKED_UP)}", "L2 Redis"),
                (f"({by_tier('l3')} or vector(0)) / {requests(LOOKED_UP)}", "L3 disk"),
            ],
            "percentunit",
            """Much from L2 or L3 that is asked for often: `l1.max_bytes` is too small. None from L2: Redis is away,
            or useless.""",
            stack=True,
            high=1,
        ),
    ]


def of_latency() -> list[dict]:
    by_tier = lambda share: quantile(share, DURATION, HITS, "tier")  # noqa: E731
    return [
        series(
            "Hits by tier",
            [(by_tier(0.5), "{{tier}} p50"), (by_tier(0.99), "{{tier}} p99")],
            "s",
            """From the request's head to the last byte. Memory takes microseconds, Redis a network's round trip, the
            disk some milliseconds; slow clients count. A tier far above that: the dashboard of tiers.""",
        ),
        series(
            "95 of 100 requests, by outcome",
            [(quantile(0.95, DURATION, by="outcome"), "{{outcome}}")],
            "s",
            """`miss` and `expired` follow the origin. `collapsed` waits for another's fill; `hit` should stay flat
            whatever they do.""",
        ),
        series(
            "Time to the origin's answer",
            quantiles("larder_origin_head_wait_seconds"),
            "s",
            """From the request sent to the head of the origin's answer. When it rises, misses rise with it, and hits
            should not.""",
        ),
        heatmap(
            "Requests answered from the cache",
            DURATION,
            HITS,
            "How long hits took. A second band at the top is a slow tier or slow clients.",
        ),
        heatmap(
            "Requests answered by the origin",
            DURATION,
            'outcome!~"hit|stale|stale-if-error"',
            "How long everything else took: the origin's own spread, and the waits for it.",
        ),
    ]


def of_origin() -> list[dict]:
    return [
        series(
            "Requests in, and on to the origin",
            [(requests(), "from clients"), (total("larder_origin_requests_total"), "to origins")],
            "reqps",
            """The gap is what the origin is spared. To origins more than usual while clients ask as usual: a surge,
            see docs/RUNBOOK.md. The line of origins is of all routes.""",
        ),
        series(
            "Origin failures",
            [(total("larder_origin_requests_total", 'outcome!="ok"', "outcome"), "{{outcome}}")],
            "reqps",
            """Requests to origins that got no answer, in the words of Proxy-Status (RFC 9209). Stored responses stand
            in where they may (`stale-if-error`).""",
            stack=True,
        ),
        series(
            "Breakers of origins",
            [(total("larder_origin_breaker_changes_total", by="state"), "{{state}}")],
            "cps",
            """An upstream that fails `origin.breaker_failures` times in a row rests. Any `resting` means one is, or
            was, down.""",
        ),
        series(
            "Waits for a connection",
            [(f"({quantile(0.95, 'larder_origin_queue_wait_seconds')} >= 0) or vector(0)", "p95 of those that waited")]
            + [(total("larder_origin_queue_wait_seconds_count"), "requests that waited, a second")],
            "short",
            """Requests that found `origin.connections_max` connections busy. Regularly above 0: raise it, or the
            origin is slow.""",
        ),
    ]


def of_bytes() -> list[dict]:
    sent = "larder_response_bytes_total"
    return [
        series(
            "Content sent to clients",
            [
                (total(sent, HITS, where=ROUTE), "from the cache"),
                (total(sent, 'outcome!~"hit|stale|stale-if-error"', where=ROUTE), "from origins"),
            ],
            "Bps",
            """What the cache spares the network towards the origin. Large answers that are not stored dominate the
            lower part.""",
            stack=True,
        ),
        series(
            "Answers by status",
            [(total(RESPONSES, by="status", where=ROUTE), "{{status}}")],
            "reqps",
            "`5xx` beside `error` above is the gateway's own; without it, the origin's. `none`: the client left first.",
            stack=True,
        ),
        series(
            "Refused, and given up",
            [
                (total("larder_client_refused_total"), "refused before a route"),
                (total("larder_client_timeouts_total"), "silent clients"),
                (requests('outcome="limited"'), "refused by a limit"),
                (requests('outcome="error"'), "errors of the gateway"),
                (total("larder_origin_bodies_broken_total"), "answers that broke off"),
            ],
            "reqps",
            """Refusals and silent clients are of the network's making; errors of the gateway say that an origin could
            not be had.""",
        ),
        series(
            "Under way",
            [
                (f"sum ({now('larder_requests_in_flight')})", "requests"),
                (f"sum ({now('larder_origin_requests_in_flight')})", "requests to origins"),
                (f"sum ({now('larder_client_connections')})", "client connections"),
            ],
            "short",
            """Requests that pile up wait for something: the origin if both lines rise, clients that read slowly if
            only the first.""",
        ),
    ]


def of_callers() -> list[dict]:
    tenants, limits = "larder_tenant_requests_total", "larder_limit_requests_total"
    of_tenants = lambda labels="": total(tenants, labels, "tenant", ROUTE)  # noqa: E731
    return [
        series(
            "Requests by tenant",
            [(of_tenants(), "{{tenant}}")],
            "reqps",
            "On routes that ask who it is (`access.clients`). A tenant that is missing shows an old key, or none.",
            stack=True,
        ),
        series(
            "Hit ratio by tenant",
            [(f"{of_tenants(HITS)} / {of_tenants(LOOKED_UP)}", "{{tenant}}")],
            "percentunit",
            """Tenants share nothing unless `cache.partition` says so; one that asks for little of everything has a low
            ratio of its own.""",
            high=1,
        ),
        series(
            "Not let in",
            [(total("larder_access_denied_total", by="reason", where=ROUTE), "{{reason}}")],
            "reqps",
            """`unknown-key`: a key was changed before its clients were, or somebody tries keys. `issuer-unavailable`:
            the keys of an issuer are not known.""",
            stack=True,
        ),
        series(
            "Limits",
            [(total(limits, by="limit, result", where=ROUTE), "{{limit}} {{result}}")],
            "reqps",
            """`refused` was answered 429; `would_refuse` is what a limit would refuse that is tried out
            (`enforce = false`).""",
        ),
        series(
            "Limits over Redis",
            [(total("larder_limit_redis_total", by="result"), "{{result}}")],
            "cps",
            """Who decided. `local` and `open`: Redis did not answer, and each node counted by itself, or not at all.
            `remembered` asked nobody.""",
        ),
        series(
            "Tokens of issuers",
            [(total("larder_jwt_verifications_total", by="issuer, result"), "{{issuer}} {{result}}")],
            "cps",
            """Signed tokens that were verified; one that is remembered is not verified again. `unknown-key` or
            `unavailable`: can the issuer be reached?""",
        ),
    ]
