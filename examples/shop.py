#!/usr/bin/env python3
"""A small shop to try the gateway with: each kind of answer with the fields its author would send.

    shop.py [PORT]      listens on 127.0.0.1, port 9000 by default

    /products/7         the catalogue: an hour, with tags
    /profile            of who asks: five minutes, for nobody else
    /balance            of who asks: a minute, where purges are obeyed at once
    /stock/7            two seconds, with a tag; PUT changes it
    /fail               switches failing on and off: all else is 503 meanwhile

`request` in an answer is its number: what comes from a cache has the number of the answer that was stored.
"""

import itertools
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NUMBERS = itertools.count(1)
STOCK: dict[str, int] = {}
FAILING: list[bool] = []


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.partition("?")[0]
        page, _, item = path.strip("/").partition("/")
        who = self.headers.get("Authorization", "nobody").removeprefix("Bearer ")
        if page == "fail":
            FAILING.clear() if FAILING else FAILING.append(True)
            self.answer({"failing": bool(FAILING)}, Cache_Control="no-store")
        elif FAILING:
            self.answer({"error": "the database is gone"}, status=503)
        elif page == "profile":
            self.answer({"of": who}, Cache_Control="max-age=300")
        elif page == "balance":
            self.answer({"of": who, "cents": 4200}, Cache_Control="max-age=60", Surrogate_Key=f"account-{who}")
        elif page == "stock":
            left = STOCK.get(item, 10)
            self.answer({"item": item, "left": left}, Cache_Control="max-age=2", Surrogate_Key=f"stock-{item}")
        elif page not in ("", "products", "images"):
            self.answer({"error": "no such page"}, status=404)
        else:
            tags = f"catalogue product-{item}" if page == "products" and item else "catalogue"
            control = "max-age=3600, stale-while-revalidate=60, stale-if-error=86400"
            self.answer({"page": path}, Cache_Control=control, Surrogate_Key=tags, ETag=f'"{item or page}"')

    do_HEAD = do_GET

    def do_PUT(self):
        STOCK[self.path.rpartition("/")[2]] = int(self.rfile.read(int(self.headers.get("Content-Length", 0))) or 0)
        self.answer({"stored": True})

    def answer(self, content: dict, status: int = 200, **fields: str):
        body = (json.dumps({**content, "request": next(NUMBERS)}) + "\n").encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **fields}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), Shop).serve_forever()
