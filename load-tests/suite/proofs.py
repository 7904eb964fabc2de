"""Whether a server does what a scenario is about: asked before it is measured, by what the origin saw of it.

Each proof raises `Broken` with the reason, which becomes the dash in the table.
"""

import time

from suite.origin import ask, counts, since
from suite.processes import Broken

ENTITY_TAG = '"5f3c1d9a7e"'


def answers(server, origin, path, status=200, times=1, length=None, **request):
    """Asks so many times, and returns what the origin counted meanwhile."""
    before = counts(origin)
    for _ in range(times):
        answer = ask(server.address, path, **request)
        if answer.status != status:
            raise Broken(f"answers {answer.status} instead of {status}")
        if length is not None and answer.length != length:
            raise Broken(f"answers {answer.length} bytes instead of {length}")
    return since(before, counts(origin))


def caches(server, origin, path):
    """Before long a request does not reach the origin; some store what they have answered a little later."""
    answers(server, origin, path, times=2)
    for _ in range(10):
        if not answers(server, origin, path)["requests"]:
            return
        time.sleep(0.02)
    raise Broken("does not cache it")


def stores(server, origin, path):
    """A new key reaches the origin and is then there."""
    if answers(server, origin, path)["requests"] != 1:
        raise Broken("does not ask the origin")
    caches(server, origin, path)


def keeps(server, origin, path, keys):
    """All keys are there after a while: what is written behind may have to be asked for again."""
    for _ in range(20):
        before = counts(origin)
        for key in range(keys):
            if (answer := ask(server.address, path.replace("{}", str(key)))).status != 200:
                raise Broken(f"answers {answer.status}")
        if (seen := since(before, counts(origin))["requests"]) == 0:
            return
        time.sleep(0.5)
    raise Broken(f"does not keep them: of {keys}, {seen} reach the origin")


def passes(server, origin, path, **request):
    if answers(server, origin, path, times=3, **request)["requests"] != 3:
        raise Broken("does not pass it on each time")


def revalidates(server, origin, path):
    """Full answers to those who did not ask for less, made from a 304 each."""
    answers(server, origin, path, times=2, length=1024)
    seen = answers(server, origin, path, times=3, length=1024)
    if seen["not_modified"] != 3 or seen["requests"] != 3:
        raise Broken(f"does not revalidate: of 3 requests {seen['requests']} reach the origin, {seen['not_modified']} are answered 304")


def ranges(server, origin, path, field):
    caches(server, origin, path)
    if answers(server, origin, path, status=206, times=3, length=1024, headers={"Range": field})["requests"]:
        raise Broken("asks the origin for ranges")


def conditional(server, origin, path):
    caches(server, origin, path)
    if answers(server, origin, path, status=304, times=3, headers={"If-None-Match": ENTITY_TAG})["requests"]:
        raise Broken("asks the origin")


def speaks_h2(server, origin, path):
    if not server.h2:
        raise Broken("has no cleartext HTTP/2")
    caches(server, origin, path)


def purges(server, origin, path):
    """A tag purged takes with it what carries it."""
    if not server.purge:
        raise Broken("cannot purge by tag")
    caches(server, origin, path)
    server.purge("proof")
    if not answers(server, origin, path)["requests"]:
        raise Broken("does not purge by tag")
