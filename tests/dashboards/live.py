"""Prometheus scrapes gateways under traffic: every expression is evaluated, and disturbances raise their alerts."""

import json
import math
import re
import signal
import sys
import time

import rules
from origin import Origin
from stage import ROOT, Disk, Gateway, Prometheus, Redis, clear, until, workplace
from traffic import Traffic

sys.path.insert(0, str(ROOT / "tests" / "sdk"))
from provider import Provider  # noqa: E402

# So long caches fill before rules are evaluated, and so long everything is as usual then: alerts compare with that.
BEGINNING, USUAL = 10, 32

# How long panels may take to show something, and a disturbance to raise its alert.
WARMTH, PATIENCE = 45, 40

VARIABLES = {
    "$__rate_interval": "6s",
    "$__range": "60s",
    "$job": "larder",
    "$instance": ".*",
    "$route": ".*",
}


def panels():
    """Every query of every panel: dashboard, panel, legend, expression."""
    for path in sorted((ROOT / "dashboards" / "grafana").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for query in panel.get("targets", []):
                yield dashboard["uid"], panel["title"], query["legendFormat"], chosen(query["expr"])


def chosen(expression: str) -> str:
    """With all variables in their places."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


class Show:
    """All that runs, from the first traffic to the last disturbance. `check` is told of each result."""

    def __init__(self, check):
        self.check, self.directory, self.running = check, workplace(), []
        (self.directory / "disk").mkdir()
        self.disk = Disk(self.directory / "disk")
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self):
        self.origin, self.provider = Origin(), Provider()
        self.redis = self.kept(Redis(self.directory))
        self.gateways = [self.gateway("one", self.disk.path), self.gateway("two", self.directory)]
        self.traffic = Traffic(self.gateways, self.redis)
        rules.shortened(self.directory)
        self.prometheus = self.kept(Prometheus(self.directory, [gateway.admin for gateway in self.gateways]))
        # What is usual is not how it begins, and a rate is too low until its window is full.
        time.sleep(BEGINNING)
        self.prometheus.judge()
        self.begun = time.monotonic()

    def gateway(self, name, directory, **settings) -> Gateway:
        places = self.origin.base, self.provider.base, self.redis.url
        return self.kept(Gateway(name, directory, *places, **settings))

    def kept(self, process):
        self.running.append(process)
        return process

    def stop(self):
        if hasattr(self, "traffic"):
            self.traffic.stop()
        for process in reversed(self.running):
            process.kill()
        self.disk.unmount()
        clear(self.directory)

    # What panels and rules show.

    def evaluate(self):
        """Each query of each panel has something to show, before the time is over."""
        waiting, told, end = list(panels()), {}, time.monotonic() + WARMTH
        while waiting and time.monotonic() < end:
            time.sleep(2)
            waiting = [query for query in waiting if not self.shows(query, told)]
        for query in panels():
            dashboard, title, legend, expression = query
            name = f"{dashboard}: {title}: {legend}"
            self.check(name, [f"{told.get(query) or 'no data'}: {expression}"] if query in waiting else [])

    def shows(self, query, told) -> bool:
        """Whether there is a number in the answer."""
        try:
            found = self.prometheus.query(query[3])
        except ValueError as refused:
            told[query] = str(refused)
            return False
        return any(math.isfinite(float(series["value"][1])) for series in found)

    def recorded(self):
        for rule in rules.all_rules("recording.yml"):
            found = until(rule["record"], PATIENCE, lambda name=rule["record"]: self.prometheus.query(name) or None)
            self.check(f"recorded: {rule['record']}", [] if found else ["nothing"])

    def healthy(self):
        """Prometheus has evaluated each rule without an error."""
        for group in self.prometheus.api("rules")["groups"]:
            for rule in group["rules"]:
                self.check(f"rule: {rule['name']}", [rule["lastError"]] if rule["health"] != "ok" else [])

    def families(self):
        """Names in expressions are names that are exported: `or vector(0)` would hide a wrong one."""
        known = set(self.prometheus.api("label/__name__/values"))
        expressions = {query[3] for query in panels()} | {rule["expr"] for rule in rules.alerts()}
        expressions |= {rule["expr"] for rule in rules.all_rules("recording.yml")}
        for expression in sorted(expressions):
            bare = re.sub(r'"[^"]*"', "", expression)
            names = set(re.findall(r"\b(?:larder|process|job|job_instance|job_instance_tier)[_:][a-z0-9_:]+", bare))
            self.check(f"names in {expression}", [f"nobody exports {name}" for name in sorted(names - known)])

    # What happens when things break.

    def quiet(self, when: str):
        firing = self.prometheus.query('max_over_time(ALERTS{alertstate="firing"}[10m])')
        self.check(f"no alert {when}", [json.dumps(alert["metric"]) for alert in firing])

    def raises(self, what: str, *names: str):
        """The disturbance raises these alerts, and each says what it is and where to read on."""
        begun = time.monotonic()
        for name in names:
            try:
                alert = until(name, PATIENCE, lambda name=name: self.prometheus.firing().get(name))
            except TimeoutError:
                self.check(f"{what}: {name}", [f"not within {PATIENCE} s; firing: {sorted(self.prometheus.firing())}"])
                continue
            told = alert["annotations"]
            wrong = [text for text in told.values() if "{{" in text or "<no value>" in text or "<error" in text]
            if told["runbook_url"] != f"docs/RUNBOOK.md#{name.lower()}":
                wrong.append(told["runbook_url"])
            print(f"{what}: {name} after {time.monotonic() - begun:.0f} s: {told['summary']}", flush=True)
            self.check(f"{what}: {name}", wrong)

    def calm(self, *names: str):
        """These have ended."""
        until(f"the end of {names}", PATIENCE, lambda: not set(names) & set(self.prometheus.firing()))

    def disturb(self):
        time.sleep(max(0, self.begun + USUAL - time.monotonic()))
        self.quiet("before the disturbances")
        self.origin.slow = 2.5
        self.raises("a slow origin", "LarderOriginSlow")
        self.origin.slow = 0.0
        self.fill_the_disk()
        self.origin.close()
        self.raises("no origin", "LarderOriginBreakerOpen", "LarderOriginErrors", "LarderErrorRate")
        self.origin.open()
        self.calm("LarderErrorRate")
        self.redis.signal(signal.SIGSTOP)
        self.raises("a Redis that hangs", "LarderRedisBreakerOpen", "LarderFenced")
        self.redis.signal(signal.SIGCONT)
        self.calm("LarderFenced", "LarderRedisDown")
        self.redis.kill()
        self.raises("no Redis", "LarderRedisDown", "LarderLimitsWithoutRedis")
        self.gateways[1].kill()
        self.raises("a dead gateway", "LarderDown")

    def fill_the_disk(self):
        if self.disk.mounted:
            self.disk.fill(leave=4 << 20)
            self.raises("a full disk", "LarderDiskNearlyFull")
            self.disk.clear()
            self.calm("LarderDiskNearlyFull")
            return
        # Nobody may mount here: a gateway that wants more left free than any disk has.
        third = self.gateway("three", self.directory, LARDER_L3__FREE_BYTES_MIN="1000PB")
        self.prometheus.scrape([gateway.admin for gateway in [*self.gateways, third]])
        self.prometheus.signal(signal.SIGHUP)
        self.raises("a full disk", "LarderDiskNearlyFull")
