"""What the origin counts, and single requests whose answers are looked at."""

import http.client
import json
import time
from dataclasses import dataclass


@dataclass
class Answer:
    """One answer, read to its end."""

    status: int
    fields: object
    length: int


def ask(address, path, method="GET", body=None, headers=None):
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, len(response.read()))
    finally:
        connection.close()


def counts(origin):
    """Requests, connections and 304s of the origin so far."""
    connection = http.client.HTTPConnection(origin, timeout=30)
    connection.request("GET", "/stats")
    found = json.loads(connection.getresponse().read())
    connection.close()
    # This connection was one of them.
    counts.own += 1
    found["connections"] -= counts.own
    return found


counts.own = 0


def settled(origin):
    """The same, once it has stopped changing: a load that has ended leaves requests under way."""
    last, seen = None, counts(origin)
    while seen != last:
        time.sleep(0.1)
        last, seen = seen, counts(origin)
    return seen


def since(before, after):
    return {name: after[name] - before[name] for name in after}
