"""How each server is started: its command, its configuration from peers/, and what it can be asked beside HTTP."""

import http.client
import json
import os
import shutil
from dataclasses import dataclass, field

from suite.processes import Broken, Process, free_port

TEMPLATES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peers")
YARDSTICK = "bare hyper"
DIRECT = "origin itself"
OURS = "larder"


@dataclass
class Site:
    """Where servers are started, and in front of what."""

    directory: str
    core: int
    origin: str
    megabytes: int
    files: int
    programs: str
    body: int = 1024
    h2: bool = False
    # Whether caches are to be on a disk, with no more in memory than this.
    disk: bool = False
    memory: int = 1

    def room(self, name):
        """A new directory for one server; its workers may be another user."""
        path = os.path.join(self.directory, name.replace(" ", "-"))
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path, mode=0o755)
        return path

    def render(self, template, directory, **values):
        host, _, port = self.origin.rpartition(":")
        known = {
            "directory": directory, "origin": self.origin, "host": host, "origin_port": port, "files": self.files,
            "megabytes": self.megabytes, "bytes": (self.memory if self.disk else self.megabytes) << 20, "user": "nobody",
            "memory": self.memory,
        }
        with open(os.path.join(TEMPLATES, template), encoding="utf-8") as source:
            text = source.read()
        for name, value in {**known, **values}.items():
            text = text.replace(f"@{name}@", str(value))
        path = os.path.join(directory, template)
        with open(path, "w", encoding="utf-8") as target:
            target.write(text)
        return path


@dataclass
class Server:
    """A running server. `purge` takes a tag and returns when that was answered."""

    name: str
    process: Process
    address: str
    h2: str = None
    purge: object = field(default=None, repr=False)


def start_origin(directory, core, programs):
    process = Process([os.path.join(programs, "examples", "origin")], core, directory)
    return Server(DIRECT, process, process.wait_for_output(r"listening on http://(\S+)"))


def yardstick(site):
    bare = os.path.join(site.programs, "examples", "bare")
    protocol = "h2" if site.h2 else "h1"
    process = Process([bare, "127.0.0.1:0", str(site.body), protocol], site.core, site.directory)
    address = process.wait_for_output(r"listening on http://(\S+)")
    return Server(YARDSTICK, process, address, h2=address if site.h2 else None)


def larder(site):
    room = site.room(OURS)
    template = "larder-disk.toml" if site.disk else "larder.toml"
    process = Process(
        [
            os.path.join(site.programs, "larder"), "--config", site.render(template, room), "--listen", "127.0.0.1:0",
            "--admin", "127.0.0.1:0", "--upstream", f"http://{site.origin}", "--data-dir", os.path.join(room, "data"),
        ],
        site.core, room,
    )
    address = process.wait_for_output(r"data listening on http://([^\s\"]+)")
    admin = process.wait_for_output(r"admin listening on http://([^\s\"]+)")

    def purge(tag):
        body = json.dumps({"tags": [tag]})
        expect_200(admin, "POST", "/purge", body, {"content-type": "application/json"})

    return Server(OURS, process, address, h2=address, purge=purge)


def haproxy(site):
    room, port = site.room("haproxy"), free_port()
    # Each connection may need a second one, and some files are needed beside.
    config = site.render("haproxy.cfg", room, port=port, connections=site.files // 2 + 2000)
    process = Process(["haproxy", "-db", "-f", config], site.core, room)
    return listening(Server("haproxy", process, f"127.0.0.1:{port}", h2=f"127.0.0.1:{port}"))


def nginx(site):
    room, port, h2_port = site.room("nginx"), free_port(), free_port()
    keys = max(64, site.megabytes // 4)
    config = site.render("nginx.conf", room, port=port, h2_port=h2_port, keys=keys)
    process = Process(["nginx", "-p", room, "-c", config], site.core, room)
    return listening(Server("nginx", process, f"127.0.0.1:{port}", h2=f"127.0.0.1:{h2_port}"))


def varnish(site):
    room, port = site.room("varnish"), free_port()
    settings = {
        "feature": "+http2", "timeout_idle": "120", "idle_send_timeout": "120", "send_timeout": "3600",
        "backend_idle_timeout": "3600", "thread_pools": "1", "thread_pool_min": "100", "thread_pool_max": "15000",
        "listen_depth": "4096", "cli_timeout": "600",
    }
    command = ["varnishd", "-F", "-j", "none", "-n", room, "-a", f"127.0.0.1:{port}", "-s", f"malloc,{site.megabytes}m"]
    command += ["-f", site.render("varnish.vcl", room)]
    for name, value in settings.items():
        command += ["-p", f"{name}={value}"]
    process = Process(command, site.core, site.directory)
    address = f"127.0.0.1:{port}"
    return listening(Server("varnish", process, address, h2=address, purge=lambda tag: expect_200(address, "PURGE", "/", None, {"xkey": tag})))


def trafficserver(site):
    room, port = site.room("trafficserver"), free_port()
    places = {name: os.path.join(room, name) for name in ["sysconfdir", "datadir", "localstatedir", "runtimedir", "logdir", "cachedir"]}
    for place in places.values():
        os.makedirs(place)
    files = {
        "storage.config": f"{places['cachedir']} {site.megabytes * 2}M\n", "remap.config": f"map / http://{site.origin}/\n",
        "ip_allow.yaml": "ip_allow:\n  - apply: in\n    ip_addrs: 127.0.0.1\n    action: allow\n    methods: ALL\n",
        "plugin.config": "", "runroot.yaml": "",
    }
    for name, text in files.items():
        with open(os.path.join(places["sysconfdir"], name), "w", encoding="utf-8") as target:
            target.write(text)
    site.render("records.config", places["sysconfdir"], port=port)
    layout = {"prefix": room, "exec_prefix": "/usr", "bindir": "/usr/bin", "sbindir": "/usr/bin", "includedir": "/usr/include",
              "libdir": "/usr/lib/trafficserver", "libexecdir": "/usr/lib/trafficserver/modules", **places}
    run_root = os.path.join(room, "runroot.yaml")
    with open(run_root, "w", encoding="utf-8") as target:
        target.writelines(f"{name}: {place}\n" for name, place in layout.items())
    process = Process(["traffic_server", f"--run-root={run_root}"], site.core, room)
    address = f"127.0.0.1:{port}"
    return listening(Server("trafficserver", process, address, h2=address))


def squid(site):
    room, port = site.room("squid"), free_port()
    os.chmod(room, 0o777)
    # Its shared memory has this name, and is left behind when it is killed.
    service = f"larder{os.getpid()}"
    command = ["squid", "-N", "-d1", "-n", service, "-f", site.render("squid.conf", room, port=port)]
    process = Process(command, site.core, room, leaves=f"/dev/shm/{service}-*")
    return listening(Server("squid", process, f"127.0.0.1:{port}"))


STARTERS = {
    YARDSTICK: (yardstick, None), OURS: (larder, None), "haproxy": (haproxy, "haproxy"), "nginx": (nginx, "nginx"),
    "varnish": (varnish, "varnishd"), "trafficserver": (trafficserver, "traffic_server"), "squid": (squid, "squid"),
}


def start(name, site):
    starter, command = STARTERS[name]
    if command and not shutil.which(command):
        raise Broken("not installed")
    return starter(site)


def listening(server):
    server.process.wait_for_port(int(server.address.rpartition(":")[2]))
    return server


def expect_200(address, method, path, body, headers):
    connection = http.client.HTTPConnection(address, timeout=600)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    if response.status != 200:
        raise Broken(f"{method} {path} was answered {response.status}: {text[:200]}")
