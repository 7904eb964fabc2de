"""What the gateway takes of its machine."""

from .grafana import BAD, FAIR, GOOD, dashboard, now, rate, series, stat, steps, table, total


def build() -> dict:
    return dashboard(
        "larder-process",
        "CPU, memory and connections of each node.",
        [("Nodes", of_nodes()), ("Resources", of_resources()), ("Connections", of_connections())],
    )


def of_nodes() -> list[dict]:
    fds = f"max ({now('process_open_fds')} / {now('process_max_fds')})"
    return [
        stat(
            "Scraped nodes",
            'sum (up{job=~"$job",instance=~"$instance"})',
            "none",
            "Nodes Prometheus reaches. Fewer than there are: LarderDown in docs/RUNBOOK.md.",
            steps(BAD, (1, GOOD)),
        ),
        stat(
            "Youngest",
            f"min (time() - {now('process_start_time_seconds')})",
            "s",
            """Time since the last start of any node. Shorter than the last deployment: it was restarted, look at its
            log.""",
        ),
        stat(
            "File descriptors in use",
            fds,
            "percentunit",
            """Of what the node may use that uses most. At 1 it accepts nobody: raise the limit (`ulimit -n`,
            `LimitNOFILE`).""",
            steps(GOOD, (0.7, FAIR), (0.85, BAD)),
        ),
        table(
            "Releases",
            [(f"count by (instance, version) ({now('larder_build_info')})", "")],
            "none",
            "Which release each node runs. Nodes of one fleet should soon be of one.",
            h=5,
        ),
    ]


def of_resources() -> list[dict]:
    return [
        series(
            "CPU",
            [(rate("process_cpu_seconds_total"), "{{instance}}")],
            "short",
            "Cores in use. Near `listen.workers` hits begin to wait.",
        ),
        series(
            "Memory",
            [(now("process_resident_memory_bytes"), "{{instance}}"), (now("larder_l1_bytes"), "{{instance}} L1")],
            "bytes",
            "L1 is most of it. What rises beside it: bodies on their way, connections, the index of L3.",
        ),
        series(
            "File descriptors and threads",
            [(now("process_open_fds"), "{{instance}} descriptors"), (now("process_threads"), "{{instance}} threads")],
            "short",
            "Descriptors follow connections. Threads are few and constant.",
        ),
        series(
            "Defects and lost lines",
            [
                (total("larder_client_panics_total"), "panics"),
                (total("larder_client_accept_errors_total"), "failed accepts"),
                (total("larder_access_log_dropped_total"), "access lines dropped"),
                (total("larder_access_log_write_errors_total"), "access lines not written"),
            ],
            "cps",
            "A panic is a defect: report it with the lines around it. Failed accepts want file descriptors.",
        ),
    ]


def of_connections() -> list[dict]:
    return [
        series(
            "Clients",
            [(now("larder_client_connections"), "{{instance}} open"), (now("larder_tunnels"), "{{instance}} tunnels")],
            "short",
            "At `client.connections_max` further clients wait in the kernel.",
        ),
        series(
            "New connections of clients",
            [(total("larder_client_connections_accepted_total", by="protocol"), "{{protocol}}")],
            "cps",
            "Many for few requests: clients that do not keep connections; each costs more than a hit.",
        ),
        series(
            "Connections to origins",
            [
                (now("larder_origin_connections_open"), "{{instance}} open"),
                (now("larder_origin_connections_idle"), "{{instance}} idle"),
            ],
            "short",
            "At `origin.connections_max` to one origin, requests queue.",
        ),
        series(
            "Opened and used again",
            [
                (total("larder_origin_connections_opened_total", by="protocol"), "opened {{protocol}}"),
                (total("larder_origin_connections_reused_total"), "used again"),
                (total("larder_origin_retries_total"), "requests sent again"),
            ],
            "cps",
            "Most should be used again. If not, the origin closes them: its keep-alive time is short.",
        ),
        series(
            "Requests answered without the HTTP library",
            [(total("larder_client_express_total"), "express"), (total("larder_requests_total"), "all")],
            "reqps",
            "Plain hits take the short way. If few hits do, requests have unusual fields: see `headers.trusted`.",
        ),
        series(
            "Answers clients are slow to read",
            [(now("larder_origin_bodies_unread"), "{{instance}}")],
            "short",
            "Bodies that are not stored and wait for their clients; each holds one piece in memory.",
        ),
    ]
