"""What the test starts: Redis, gateways and Prometheus, each on a free port and with a directory of its own."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "dashboards"
SECRET = "42" * 32


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def get(url: str, **query) -> bytes:
    with urllib.request.urlopen(
        url + ("?" + urllib.parse.urlencode(query, doseq=True) if query else ""), timeout=20
    ) as got:
        return got.read()


def until(what: str, seconds: float, look):
    """Looks until there is something to be seen, and gives it back."""
    end = time.monotonic() + seconds
    while True:
        try:
            if seen := look():
                return seen
        except OSError:
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.2)


class Process:
    """A process of its own that ends with the test."""

    def __init__(self, name: str, command: list, **more):
        log = WORK / f"{name}.log"
        self.log = log.open("wb")
        more = {"stdout": self.log, **more}
        self.child = subprocess.Popen([str(word) for word in command], stderr=self.log, **more)

    def signal(self, number):
        self.child.send_signal(number)

    def kill(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.kill()
        self.child.wait()
        self.log.close()


class Redis(Process):
    def __init__(self, directory: pathlib.Path):
        self.port = free_port()
        command = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        super().__init__("redis", [*command, "--dir", directory])
        self.url = f"redis://127.0.0.1:{self.port}"
        until("redis", 10, lambda: self.call("PING").startswith(b"+PONG"))

    def call(self, *words: str) -> bytes:
        """One command, as Redis takes it and answers it."""
        parts = [b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words]
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
            link.sendall(b"*%d\r\n" % len(parts) + b"".join(parts))
            return link.recv(4096)


class Gateway(Process):
    def __init__(self, name: str, directory: pathlib.Path, origin: str, provider: str, redis: str, **settings):
        places = {"ORIGIN": origin, "PROVIDER": provider, "REDIS": redis, "ISSUER": str(HERE / "issuer.pem")}
        config = directory / f"{name}.toml"
        config.write_text(re.sub("|".join(places), lambda match: places[match[0]], (HERE / "larder.toml").read_text()))
        secret = directory / f"{name}.secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        binary = os.environ.get("LARDER", ROOT / "target" / "debug" / "larder")
        command = [binary, "--config", config, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.data_dir = directory / name
        env = {**os.environ, "LARDER_SECRET_FILE": str(secret), "LARDER_FLEET__NODE": name, **settings}
        super().__init__(name, [*command, "--data-dir", self.data_dir], stdout=subprocess.PIPE, env=env)
        self.base, self.admin = self._listening("data"), self._listening("admin")
        threading.Thread(target=self.child.stdout.read, daemon=True).start()

    def _listening(self, name: str) -> str:
        for line in self.child.stdout:
            if found := re.match(rf"{name} listening on http://([^/\s]+)", line.decode()):
                return found[1]
        raise RuntimeError(f"a gateway ended with {self.child.wait()}; see target/dashboards")


class Prometheus(Process):
    """Scrapes each second, and evaluates the rules that lie in `directory` each second, once it is told to."""

    def __init__(self, directory: pathlib.Path, targets: list[str]):
        self.base, self.config = f"http://127.0.0.1:{free_port()}", directory / "prometheus.yml"
        self.rules, self.targets = [], targets
        self.scrape(targets)
        address = self.base.removeprefix("http://")
        command = ["prometheus", f"--config.file={self.config}", f"--storage.tsdb.path={directory / 'tsdb'}"]
        super().__init__("prometheus", [*command, f"--web.listen-address={address}", "--log.level=warn"])
        until("prometheus", 20, lambda: get(f"{self.base}/-/ready"))

    def scrape(self, targets: list[str]):
        """Who is scraped; to be followed by SIGHUP where it runs already."""
        self.config.write_text(
            "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\n"
            f"rule_files: {json.dumps(self.rules)}\n"
            f"scrape_configs: [{{ job_name: larder, static_configs: [{{ targets: {json.dumps(targets)} }}] }}]\n"
        )

    def judge(self):
        """From now on, rules are evaluated."""
        self.rules = ["recording.yml", "alerts.yml"]
        self.scrape(self.targets)
        self.signal(signal.SIGHUP)

    def api(self, path: str, **query):
        """What the API answers. An expression that cannot be evaluated is an error of its own."""
        try:
            answer = json.loads(get(f"{self.base}/api/v1/{path}", **query))
        except urllib.error.HTTPError as refused:
            answer = json.loads(refused.read())
        if answer["status"] != "success":
            raise ValueError(answer.get("error"))
        return answer["data"]

    def query(self, expression: str) -> list[dict]:
        found = self.api("query", query=expression)
        return found["result"] if found["resultType"] == "vector" else [{"metric": {}, "value": found["result"]}]

    def firing(self) -> dict[str, dict]:
        """Alerts that are firing, by name."""
        return {
            alert["labels"]["alertname"]: alert for alert in self.api("alerts")["alerts"] if alert["state"] == "firing"
        }


class Disk:
    """A small file system of its own, where one may be mounted; a directory otherwise."""

    def __init__(self, directory: pathlib.Path):
        self.path = directory
        mount = ["mount", "-t", "tmpfs", "-o", "size=96m,mode=700", "larder", directory]
        self.mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0

    def fill(self, leave: int):
        """Until no more than so many bytes are left free."""
        with (self.path / "filler").open("ab") as file:
            while (stat := os.statvfs(self.path)).f_bavail * stat.f_frsize > leave:
                file.write(bytes(1 << 18))
                file.flush()

    def clear(self):
        (self.path / "filler").unlink(missing_ok=True)

    def unmount(self):
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.path], check=False)


def workplace() -> pathlib.Path:
    WORK.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(tempfile.mkdtemp(prefix="larder-dashboards-"))


def clear(directory: pathlib.Path):
    shutil.rmtree(directory, ignore_errors=True)
