"""docs/METRICS.md, from what a running gateway says of itself and what metrics.toml says to do about it."""

import json
import pathlib
import re
import subprocess
import tomllib
import urllib.request
from dataclasses import dataclass, field

from blocks import ROOT
from stage import LARDER, Stage

ADVICE = pathlib.Path(__file__).resolve().parent / "metrics.toml"
DOCUMENT = ROOT / "docs" / "METRICS.md"
REGISTERED = re.compile(r'(?:\.register(?:_with_unit)?\(|\b\w+\(registry,)\s*"(\w+)",\s*("(?:[^"\\]|\\.)*")?')
PREFIX = re.compile(r'sub_registry_with_prefix\("(\w+)"\)')


@dataclass
class Family:
    name: str
    kind: str
    help: str
    labels: list[str] = field(default_factory=list)


def families(stage: Stage) -> dict[str, Family]:
    """Of a gateway that has an authority, Redis, a webhook, and one call of each kind behind it."""
    config = stage.directory / "metrics.toml"
    config.write_text(stage.config.read_text() + '\n[[webhook]]\nname = "audit"\nkind = "json"\nurl = "http://127.0.0.1:1/"\n')
    place = str(stage.directory / "metrics")
    env = {name: value for name, value in stage.env.items() if not name.startswith("LARDER")}
    subprocess.run([LARDER, "ca", "init", "--data-dir", place], env=env, capture_output=True, check=True)
    command = [LARDER, "--config", config, "--data-dir", place, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    gateway = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        addresses = {}
        for line in gateway.stdout:
            if listening := re.match(r"(data|admin) listening on (http://\S+)", line):
                addresses[listening[1]] = listening[2].rstrip("/")
            if len(addresses) == 2:
                break
        call(addresses["data"] + "/products/7")
        call(addresses["data"] + "/openai/v1/chat/completions", CALL)
        call(addresses["data"] + "/openai/v1/chat/completions", CALL)
        call(addresses["admin"] + "/purge", b'{"tags": ["catalogue"], "ack": "fleet"}')
        call(addresses["admin"] + "/warm?wait=true", b'{"urls": ["' + addresses["data"].encode() + b'/products/8"]}')
        stage.interface = json.loads(call(addresses["admin"] + "/openapi.json"))
        return parsed(call(addresses["admin"] + "/metrics"))
    finally:
        gateway.kill()
        gateway.wait()


CALL = b'{"model": "gpt-4o-mini", "temperature": 0, "messages": [{"role": "user", "content": "Say hi"}]}'


def call(url: str, content: bytes | None = None) -> str:
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", "Authorization": "Bearer k"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def parsed(text: str) -> dict[str, Family]:
    found: dict[str, Family] = {}
    for name, help in re.findall(r"^# HELP (\S+) (.*)$", text, re.M):
        found[name] = Family(name, "", help.rstrip("."))
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M):
        found[name].kind = kind
    for sample, labels in re.findall(r"^(\w+)\{(.*)\} \S+", text, re.M):
        for suffix in ("", "_total", "_bucket", "_info"):
            if (family := found.get(sample.removesuffix(suffix))) and sample.endswith(suffix):
                names = [name for name in re.findall(r'(\w+)="', labels) if name != "le"]
                family.labels = sorted({*family.labels, *names})
                break
    return found


def advice() -> dict:
    return tomllib.loads(ADVICE.read_text())


def registered() -> dict[str, str]:
    """Families of the source, but for their unit, and what they mean: those that show nothing yet as well."""
    found = {}
    for source in (ROOT / "src").rglob("*.rs"):
        text = source.read_text().split("#[cfg(test)]")[0]
        part = PREFIX.search(text)
        # Where a table of names is registered, they are not in one place with their prefix: the running gateway has them.
        if "registry: &mut Registry" in text and not part and source.name == "metrics.rs" and source.parent.name == "store":
            continue
        if not part and "sub_registry_with_prefix(" in text:
            continue
        for name, help in REGISTERED.findall(text):
            found["_".join(filter(None, ["larder", part and part[1], name.removeprefix("larder_")]))] = help.strip('"')
    return found


def named(name: str, others) -> str | None:
    """The one of `others` that is this name, or this name with a unit."""
    return next((each for each in others if re.fullmatch(rf"{each}(_seconds|_bytes)?", name)), None)


def complete(seen: dict[str, Family]) -> dict[str, Family]:
    """With families that show nothing before their first event: they are in the source, and their type is in the advice."""
    names, every = registered(), dict(seen)
    for name, told in advice().items():
        if name not in every and "type" in told and (known := named(name, names)):
            every[name] = Family(name, told["type"], names[known].rstrip("."))
    return every


HEAD = """# Metrics

`GET /metrics` on the admin listener, as OpenMetrics text ([ADMIN.md](ADMIN.md#stats-and-metrics)). A counter `larder_x` is
`larder_x_total` in a query, a histogram has `larder_x_bucket`, `_sum` and `_count`. All figures are of one node and of one
life of its process. What to do when an alert fires is in [RUNBOOK.md](RUNBOOK.md).

This page is written by `tests/docs/run.py --update` from a running gateway and `tests/docs/metrics.toml`; `make documents` fails
when it is not up to date.
"""
PARTS = [
    (
        "Requests",
        (
            "larder_requests",
            "larder_request_",
            "larder_response",
            "larder_tenant_",
            "larder_access_denied",
            "larder_tier_hits",
            "larder_tunnels",
        ),
    ),
    ("Limits", ("larder_limit_",)),
    ("Fills: responses on their way into the cache", ("larder_fill", "larder_follower", "larder_spill", "larder_invalidated")),
    ("Clients", ("larder_client_",)),
    ("Origins", ("larder_origin_",)),
    ("L1: memory", ("larder_l1_",)),
    ("L2: Redis", ("larder_l2_", "larder_redis_")),
    ("L3: disk", ("larder_l3_",)),
    ("Purges", ("larder_purge_",)),
    ("Several nodes", ("larder_fleet_",)),
    ("Backends, CDNs, warm-up", ("larder_changes_", "larder_webhook_", "larder_warm_")),
    ("Calls to language models", ("larder_llm_",)),
    ("HTTPS_PROXY", ("larder_intercept_",)),
    ("TLS towards clients", ("larder_tls_",)),
    ("Tokens of issuers", ("larder_jwt_",)),
    ("Process, logs and traces", ("process_", "larder_build", "larder_access_log_", "larder_audit_log_", "larder_trace_")),
    ("Others", ("",)),
]


def document(seen: dict[str, Family]) -> str:
    told, left, pages = advice(), complete(seen), [HEAD]
    for title, prefixes in PARTS:
        chosen = [name for name in sorted(left) if name.startswith(prefixes)]
        if not chosen:
            continue
        rows = ["| family | type, labels | meaning | what to make of it |", "|---|---|---|---|"]
        for name in chosen:
            family, entry = left.pop(name), told.get(name, {})
            labels = entry.get("labels") or ", ".join(f"`{label}`" for label in family.labels)
            meaning = family.help[:1].upper() + family.help[1:]
            cells = (f"`{name}`", family.kind + (f": {labels}" if labels else ""), meaning, entry.get("do", ""))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        pages.append(f"\n## {title}\n\n" + "\n".join(rows) + "\n")
    return "".join(pages)


def checks(seen: dict[str, Family]) -> list[tuple[str, str | None]]:
    written = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    in_document = set(re.findall(r"^\| `(\w+)`", written, re.M))
    every = complete(seen)
    silent = [name for name in every if not advice().get(name, {}).get("do")]
    lacking, gone = sorted(set(every) - in_document), sorted(in_document - set(every))
    unnamed = [name for name in registered() if not any(named(each, [name]) for each in in_document)]
    again = "write it anew: tests/docs/run.py --update"
    return [
        ("METRICS.md: every family of the gateway", f"missing: {lacking}; {again}" if lacking else None),
        ("METRICS.md: no family that is gone", f"gone: {gone}; {again}" if gone else None),
        ("METRICS.md: every family in the source", f"add to metrics.toml, with its type: {unnamed}" if unnamed else None),
        ("METRICS.md: every family says what to make of it", f"without `do` in metrics.toml: {silent}" if silent else None),
        ("METRICS.md: up to date", again if written != document(seen) else None),
    ]


def interface(stage: Stage) -> list[tuple[str, str | None]]:
    """Whether ADMIN.md names every path of the OpenAPI document; `{id}` there may have another name."""
    text = re.sub(r"\{\w+\}", "{}", (ROOT / "docs/ADMIN.md").read_text())
    lacking = [path for path in stage.interface["paths"] if re.sub(r"\{\w+\}", "{}", path) not in text]
    return [("ADMIN.md: every path of openapi.json", f"missing: {lacking}" if lacking else None)]
