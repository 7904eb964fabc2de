#!/usr/bin/env python3
"""The console in Chromium: what it shows under traffic, what its forms do, and how it looks.

    run.py

Ends with `console: N checks, M failed`, and a status that is not zero where a check failed. Screenshots are left in
target/console.
"""

import http.client
import http.server
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "console"
PATIENCE = 30  # seconds for anything that has to happen
TOKEN = "console-test-token"


def environment():
    """Goes on in an environment that has what is required."""
    place, wanted = WORK / "venv", (HERE / "requirements.txt").read_bytes()
    stamp = place / ".made-of"
    if not stamp.is_file() or stamp.read_bytes() != wanted:
        print("installing requirements.txt", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", HERE / "requirements.txt"], check=True)
        stamp.write_bytes(wanted)
    python = place / "bin" / "python"
    if pathlib.Path(sys.prefix).resolve() != place.resolve():
        os.execv(python, [python, __file__, *sys.argv[1:]])


class Origin(http.server.ThreadingHTTPServer):
    """Counts its calls. What begins with /slow waits until it may go on."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.calls, self.lock, self.gate = {}, threading.Lock(), threading.Semaphore(0)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with self.server.lock:
            self.server.calls[self.path] = self.server.calls.get(self.path, 0) + 1
        if self.path.startswith("/slow"):
            self.server.gate.acquire(timeout=PATIENCE)
        size = 20000 if "image" in self.path else 500
        self.send_response(503 if self.path.startswith("/broken") else 200)
        self.send_header("Content-Length", str(size))
        self.send_header("Cache-Control", "no-store" if self.path.startswith(("/private", "/broken")) else "max-age=300")
        self.end_headers()
        self.wfile.write(b"x" * size)

    def log_message(self, *_):
        pass


class Gateway:
    """A gateway of its own: `data` for clients, `admin` for operators, as host and port."""

    def __init__(self, origin, token=""):
        self.directory = tempfile.TemporaryDirectory(prefix="larder-console-")
        config = pathlib.Path(self.directory.name) / "larder.toml"
        config.write_text(f"[admin]\ntoken = '{token}'\n[warm]\nconcurrency = 1\n")
        binary = os.environ.get("LARDER", ROOT / "target" / "debug" / "larder")
        arguments = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config", config, "--upstream", origin.url]
        self.process = subprocess.Popen(
            [binary, *arguments, "--data-dir", config.parent / "data", "--log", "json"],
            stdout=subprocess.PIPE,
            stderr=(WORK / "gateway.log").open("ab"),
            text=True,
        )
        self.data, self.admin = self.listening("data"), self.listening("admin")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def listening(self, name):
        for line in self.process.stdout:
            if found := re.match(rf"{name} listening on http://([0-9.:]+)", line):
                return found[1]
        raise RuntimeError("the gateway ended; see target/console/gateway.log")

    def get(self, path):
        connection = http.client.HTTPConnection(self.data, timeout=PATIENCE)
        connection.request("GET", path)
        connection.getresponse().read()
        connection.close()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.directory.cleanup()


class Traffic:
    """Clients that ask for some pages again and again."""

    def __init__(self, gateway):
        self.gateway, self.stopped = gateway, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        turn = 0
        while not self.stopped.is_set():
            turn += 1
            self.gateway.get(f"/products/{turn % 7}")
            if turn % 5 == 0:
                self.gateway.get(f"/images/{turn % 3}")
            if turn % 11 == 0:
                self.gateway.get("/private")
            if turn % 40 == 0:
                self.gateway.get(f"/broken/{turn}")
            self.stopped.wait(0.02)

    def stop(self):
        self.stopped.set()
        self.thread.join()


def eventually(what, probe):
    """What `probe` gives as soon as it gives something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := probe():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE} s: {what}")


class Page:
    """The console in a browser."""

    def __init__(self):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        # Its sandbox does not work for root, as containers run; the pages are our own.
        for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"]:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver")))
        noted = "window.violations = []; addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective));"
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": noted})

    def open(self, gateway, width=1440, height=1500, dark=False):
        self.look(width, height, dark)
        self.driver.get(f"http://{gateway.admin}/console")

    def look(self, width, height, dark):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def script(self, text, *arguments):
        return self.driver.execute_script(text, *arguments)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        return self.script("const found = document.querySelector(arguments[0]); return found ? found.innerText : ''", selector)

    def says(self, selector, pattern):
        """The text of an element, once it has `pattern` in it."""
        try:
            return eventually(f"{pattern!r} in {selector}", lambda: re.search(pattern, self.text(selector)))
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.text(selector)!r}") from None

    def enter(self, selector, text):
        element = self.find(selector)
        element.clear()
        element.send_keys(text)

    def choose(self, selector, value):
        change = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
        self.script(change, self.find(selector), value)

    def keys(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self):
        return self.script("return document.activeElement.id || document.activeElement.className")

    def errors(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def overflow(self):
        return self.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def shoot(self, name):
        height = self.script("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": self.script("return innerWidth"), "height": height, "scale": 1}
        import base64

        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        (WORK / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


class Checks:
    """What was checked, and what failed."""

    def __init__(self):
        self.done = self.failed = 0

    def __call__(self, name, check):
        self.done += 1
        try:
            result = check()
            assert result is None or result, f"{result!r}"
        except Exception:
            self.failed += 1
            print(f"FAILED {name}\n{traceback.format_exc(limit=-3)}", flush=True)
        else:
            print(f"ok     {name}", flush=True)


def equal(one, other):
    assert one == other, f"{one!r} is not {other!r}"


def shown_under_traffic(check, page):
    check("requests a second", lambda: page.says("#tile-requests .big", r"[1-9][\d.]* /s") and None)
    check("a hit ratio", lambda: page.says("#tile-hits .big", r"^[1-9][\d.]* %") and None)
    check("a latency", lambda: page.says("#tile-latency .big", r"^[\d.]+ ms p50") and None)
    check("the share of each tier", lambda: page.says(".legend", r"Memory[\s\S]*[1-9][\d.]* %[\s\S]*Origin") and None)
    check("memory", lambda: page.says("#tile-memory .big", r"[\d.]+ KiB of") and None)
    check("a sparkline", lambda: eventually("a line", lambda: page.script("return document.querySelector('#tile-requests .spark-line').getAttribute('d').length > 20")))
    check("recent requests", lambda: page.says("#requests", r"hit[\s\S]*/(products|images)/") and None)
    check("hottest keys", lambda: page.says("#entries", r"/products/\d\s+L1( L3)?\s+[1-9]") and None)
    check("the route", lambda: page.says("#routes", r"upstream\s+[\d.]+\s+[\d.]+ %|\S+\s+[\d.]+\s+[\d.]+ %") and None)
    check("live", lambda: equal(page.text("#state"), "live"))


def filters_and_order(check, page):
    def filtered():
        page.choose("#filter-outcome", "pass")
        page.choose("#filter-outcome", "error")
        page.choose("#filter-outcome", "miss")
        eventually("misses alone", lambda: set(page.text("#requests").split()) & {"miss"} and "hit" not in page.text("#requests").split())
        page.choose("#filter-outcome", "")

    def largest():
        page.choose("#entries-by", "size")
        page.says("#entries tr:first-child", r"/images/\d")
        page.choose("#entries-by", "hits")

    check("requests filtered by outcome", filtered)
    check("largest entries first", largest)


def purged_by_form(check, page, gateway, origin):
    url = f"http://{gateway.data}/only/once"

    def counted():
        gateway.get("/only/once")
        eventually("it to be stored", lambda: gateway.get("/only/once") or origin.calls["/only/once"] == 1)
        page.enter("#purge-what", url)
        page.find("#purge-count").click()
        page.says("#purge-result", r"Would purge (at least )?1 entry: 1 in memory")
        gateway.get("/only/once")
        equal(origin.calls["/only/once"], 1)

    def purged():
        page.find("#purge button.main").click()
        page.says("#purge-result", r"Purged in .* Receipt [0-9a-f]{32}")
        gateway.get("/only/once")
        equal(origin.calls["/only/once"], 2)

    def refused():
        page.enter("#purge-what", "not a url")
        page.find("#purge button.main").click()
        page.says("#purge-result.bad", r"urls")

    def from_the_list():
        page.find("#entries button").click()
        equal(page.script("return document.getElementById('purge-kind').value"), "keys")
        page.find("#purge-count").click()
        page.says("#purge-result", r"Would purge (at least )?1 entry")

    check("a dry run counts, and nothing is purged", counted)
    check("a purge by form removes", purged)
    check("a refusal is shown", refused)
    check("a purge out of the list of entries", from_the_list)


def warmed_by_form(check, page, gateway, origin):
    def progress():
        page.enter("#warm-urls", "\n".join(f"http://{gateway.data}/slow/{n}" for n in range(4)))
        page.find("#warm button.main").click()
        for _ in range(2):
            origin.gate.release()
        page.says("#warm-result", r"^2 of 4")
        equal(page.script("const bar = document.getElementById('warm-progress'); return [bar.value, bar.max, bar.hidden]"), [2, 4, False])
        for _ in range(2):
            origin.gate.release()
        page.says("#warm-result", r"Done: 4 of 4 fetched: 4 stored")

    def cancelled():
        page.enter("#warm-urls", "\n".join(f"http://{gateway.data}/slow/more{n}" for n in range(4)))
        page.find("#warm button.main").click()
        page.says("#warm-result", r"^0 of 4")
        page.find("#warm-cancel").click()
        page.says("#warm-result", r"Cancelled: ")

    check("a warm-up shows its progress", progress)
    check("a warm-up is cancelled", cancelled)


def explained_by_form(check, page, gateway):
    def hit():
        page.enter("#explain-url", f"http://{gateway.data}/products/1")
        page.find("#explain button").click()
        page.says("#explain-result", r"Hit: a fresh response is stored in L1[\s\S]*Route[\s\S]*Key")

    def unstored():
        page.enter("#explain-url", f"http://{gateway.data}/never/asked/for")
        page.find("#explain button").click()
        page.says("#explain-result", r"Forwarded: nothing is stored")

    check("explain shows the reason of a hit", hit)
    check("explain shows the reason of a miss", unstored)


def by_keyboard(check, page, gateway, origin):
    from selenium.webdriver.common.keys import Keys

    def skip_link():
        page.script("document.activeElement.blur(); scrollTo(0, 0)")
        page.open(gateway)
        page.says("#state", "live")
        page.keys(Keys.TAB)
        equal(page.focused(), "skip")
        page.keys(Keys.ENTER)
        equal(page.focused(), "main")

    def reach(wanted):
        for _ in range(60):
            if page.focused() == wanted:
                return
            page.keys(Keys.TAB)
        raise AssertionError(f"{wanted} is not reached by Tab")

    def purge():
        page.choose("#purge-kind", "urls")
        gateway.get("/by/keyboard")
        reach("purge-what")
        page.keys(f"http://{gateway.data}/by/keyboard", Keys.ENTER)
        page.says("#purge-result", "Purged")
        gateway.get("/by/keyboard")
        equal(origin.calls["/by/keyboard"], 2)

    def visible():
        reach("warm-urls")
        equal(page.script("return getComputedStyle(document.activeElement).outlineStyle"), "solid")

    def named():
        nameless = """return [...document.querySelectorAll('input, select, textarea, button, progress')].filter((it) =>
            !it.labels?.length && !it.getAttribute('aria-label') && !it.innerText.trim() && it.offsetParent).map((it) => it.id)"""
        equal(page.script(nameless), [])

    check("the skip link comes first, and leads to the content", skip_link)
    check("a purge by keyboard alone", purge)
    check("the focus is seen", visible)
    check("every control has a name", named)


def looks(check, page, gateway):
    for width, dark in [(1440, False), (1440, True), (768, False), (360, False), (360, True)]:
        name = f"{width}-{'dark' if dark else 'light'}"
        page.open(gateway, width, 1200, dark)
        check(f"live at {name}", lambda: page.says("#state", "live") and None)
        eventually("some looks", lambda: page.script("return looks.length > 12"))
        check(f"no horizontal overflow at {name}", lambda: equal(page.overflow(), 0))
        back = page.script("return getComputedStyle(document.body).backgroundColor")
        bright = sum(int(part) for part in re.findall(r"\d+", back)[:3]) / 3
        check(f"{'dark' if dark else 'light'} at {name}", lambda: equal(bright < 128, dark))
        page.shoot(name)


def with_a_token(check, page, origin):
    gateway = Gateway(origin, TOKEN)

    def asked():
        page.open(gateway)
        eventually("the dialog", lambda: page.script("return document.getElementById('token').open"))
        equal(page.text("#state"), "token needed")
        page.shoot("token")

    def wrong():
        page.enter("#token-value", "not the token")
        page.find("#token-form button.main").click()
        page.says("#token-why", "Refused: the token is not one of")

    def right():
        page.enter("#token-value", TOKEN)
        page.find("#token-form button.main").click()
        page.says("#state", "live")
        kept = page.script("return [Object.values(sessionStorage), Object.keys(localStorage).length, document.cookie]")
        equal(kept, [[TOKEN], 0, ""])
        assert TOKEN not in page.driver.page_source

    def closed():
        page.script("sessionStorage.clear()")
        page.open(gateway)
        eventually("the dialog", lambda: page.script("return document.getElementById('token').open"))
        page.find("#token-close").click()
        time.sleep(2.5)  # two more looks would ask again
        equal(page.script("return document.getElementById('token').open"), False)

    check("a gateway with a token asks for it", asked)
    check("a wrong token is refused", wrong)
    check("the right one works, and stays in the tab", right)
    check("who closes the dialog is left alone", closed)
    gateway.stop()


def when_it_goes(check, page, gateway):
    def gone():
        gateway.stop()
        page.says("#state", "does not answer")

    check("a gateway that goes is told of", gone)


def main():
    environment()
    WORK.mkdir(parents=True, exist_ok=True)
    check, origin = Checks(), Origin()
    gateway, page = Gateway(origin), Page()
    traffic = Traffic(gateway)
    try:
        page.open(gateway)
        shown_under_traffic(check, page)
        filters_and_order(check, page)
        purged_by_form(check, page, gateway, origin)
        warmed_by_form(check, page, gateway, origin)
        explained_by_form(check, page, gateway)
        page.shoot("used")
        by_keyboard(check, page, gateway, origin)
        check("no CSP violation", lambda: equal(page.script("return violations"), []))
        check("no error of the page", lambda: equal([error for error in page.errors() if "status of 400" not in error], []))
        looks(check, page, gateway)
        check("no CSP violation at other sizes", lambda: equal(page.script("return violations"), []))
        with_a_token(check, page, origin)
        page.open(gateway)
        page.says("#state", "live")
        traffic.stop()
        when_it_goes(check, page, gateway)
    except Exception:
        check.done, check.failed = check.done + 1, check.failed + 1
        traceback.print_exc()
    finally:
        traffic.stop()
        page.driver.quit()
        gateway.stop()
    print(f"console: {check.done} checks, {check.failed} failed")
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
