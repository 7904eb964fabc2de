"""Sample traffic: a little of everything a gateway counts, through all gateways, until it is told to stop."""

import http.client
import json
import random
import threading
import time

# How often each kind of path is asked for, and among how many.
KINDS = {
    "page": (70, 900),
    "fleeting": (6, 8),
    "expiring": (6, 8),
    "refreshing": (6, 8),
    "flaky": (4, 8),
    "private": (4, 4),
    "large": (4, 60),
}
# What is done through each gateway, and how often: seconds from one time to the next.
PERIODS = {"pages": 0.014, "crowd": 1, "models": 0.12, "teams": 0.1, "troubles": 1}
TEAMS = ["lk-search-0123456789abcdef", "lk-shop-0123456789abcdef"]
# Of an issuer that is known, and signed by nobody.
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUvc3RhZmYifQ.c2lnbmVkLWJ5LW5vYm9keQ"
QUESTIONS = ["how is tea made", "how is coffee made", "what is a cache"]


class Traffic:
    def __init__(self, gateways, redis):
        self.gateways, self.redis, self.stopped = gateways, redis, threading.Event()
        jobs = [(job, gateway) for gateway in gateways for job in PERIODS] + [("operators", gateways[0])]
        self.threads = [threading.Thread(target=self.run, args=job, daemon=True) for job in jobs]
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(timeout=10)

    def run(self, job, gateway):
        """At the same pace whatever else the machine does: alerts compare with what is usual."""
        link, number, due = http.client.HTTPConnection(gateway.base, timeout=10), 0, time.monotonic()
        while not self.stopped.wait(max(0, due - time.monotonic())):
            due = max(due, time.monotonic() - 1) + PERIODS.get(job, 0.5)
            try:
                getattr(self, job)(link, gateway, number)
            except (OSError, http.client.HTTPException):
                # A gateway or an origin that was taken away: that is what is looked at.
                link.close()
            number += 1

    def ask(self, link, path, method="GET", body=None, **fields):
        link.request(method, path, body, {name.replace("_", "-"): value for name, value in fields.items()})
        return link.getresponse().read()

    def pages(self, link, gateway, number):
        kinds, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
        kind = random.choices(kinds, weights)[0]
        # Some are asked for much more often than others.
        which = int(KINDS[kind][1] * random.random() ** 3)
        self.ask(link, f"/{kind}/{which}")

    def crowd(self, link, gateway, number):
        """Some ask for the same slow page at once."""
        path = f"/slow/{time.monotonic_ns()}"
        others = [http.client.HTTPConnection(gateway.base, timeout=10) for _ in range(3)]
        for other in others:
            other.request("GET", path)
        for other in others:
            other.getresponse().read()
            other.close()

    def models(self, link, gateway, number):
        model = ["gpt-4o-mini", "gpt-4o"][number % 2]
        # One in three is new, in a hundred ways; the others were asked before.
        question = QUESTIONS[number % 3] + (" today" * (number // 9 % 100) if number % 3 == 0 else "")
        call = {
            "model": model,
            "temperature": 0,
            "stream": number % 4 < 2,
            "messages": [{"role": "user", "content": question}],
        }
        fields = {"content_type": "application/json", "authorization": "Bearer sk-sample", "larder_key": TEAMS[number % 2]}
        if number % 10 == 9:
            call["messages"][0]["content"] += f" {number}"
            fields["x_provider"] = json.dumps({"end_at": 2, "finish": "length"})
            call["stream"] = True
        self.ask(link, "/openai/v1/chat/completions", "POST", json.dumps(call), **fields)

    def teams(self, link, gateway, number):
        """More than the limit admits; now and then with a key that nobody has, and with a token that is not good."""
        key = {0: "lk-of-nobody-0123456789", 1: TOKEN}.get(number % 10, TEAMS[number % 2])
        self.ask(link, f"/teams/page/{number % 7}", larder_key=key)

    def troubles(self, link, gateway, number):
        """What goes wrong in small doses."""
        self.ask(link, f"/page/{number % 20}", "POST", "changed", content_type="text/plain")
        for path in ("/error", f"/broken/{number}"):
            try:
                self.ask(link, path)
            except (OSError, http.client.HTTPException):
                link.close()

    def operators(self, link, gateway, number):
        """Purges, through all doors."""
        admin = http.client.HTTPConnection(gateway.admin, timeout=10)
        each = [
            {"tags": [f"page-{number % 50}"], "ack": "fleet"},
            {"urls": [f"http://{gateway.base}/page/{number % 50}"], "soft": True},
        ]
        for purge in each:
            self.ask(admin, "/purge", "POST", json.dumps(purge))
        self.ask(admin, "/warm", "POST", json.dumps({"urls": [f"http://{gateway.base}/page/{number % 900}"]}))
        admin.close()
        self.redis.call("XADD", "larder:{larder.changes}:stream", "*", "tags", f"page-{number % 50}")
