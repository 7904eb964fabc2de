"""The machine: what it is, what is installed on it, and installing what is missing."""

import os
import platform
import re
import shutil
import subprocess

PACKAGES = {
    "nginx": "nginx", "varnishd": "varnish", "haproxy": "haproxy", "traffic_server": "trafficserver", "squid": "squid",
    "wrk": "wrk", "h2load": "nghttp2-client", "taskset": "util-linux",
}
XKEY = "varnish-modules"
NEEDED = ["wrk", "taskset"]
# Where Debian has servers, which is not on everybody's path.
os.environ["PATH"] += ":/usr/sbin:/sbin"


def install():
    """Installs what is missing from Debian, and says so; starts no service."""
    missing = {package for command, package in PACKAGES.items() if not shutil.which(command)}
    if missing_xkey():
        missing.add(XKEY)
    if not missing:
        return
    if not shutil.which("apt-get"):
        print(f"not installed, and no apt-get here: {', '.join(sorted(missing))}")
        return
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    print(f"installing {', '.join(sorted(missing))}")
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
    with policy_against_services(sudo):
        subprocess.run([*sudo, "apt-get", "update"], check=False, **quiet)
        subprocess.run([*sudo, "apt-get", "install", "--yes", "--no-install-recommends", *sorted(missing)], check=False, **quiet)


def missing_xkey():
    found = subprocess.run(["dpkg", "-s", XKEY], capture_output=True, check=False) if shutil.which("dpkg") else None
    return found is not None and found.returncode != 0


class policy_against_services:
    """While it lasts, Debian's packages do not start what they install."""

    PATH = "/usr/sbin/policy-rc.d"

    def __init__(self, sudo):
        self.sudo = sudo
        self.ours = not os.path.exists(self.PATH)

    def __enter__(self):
        if self.ours:
            script = f"printf '#!/bin/sh\\nexit 101\\n' > {self.PATH} && chmod 755 {self.PATH}"
            subprocess.run([*self.sudo, "sh", "-c", script], check=True)

    def __exit__(self, *_):
        if self.ours:
            subprocess.run([*self.sudo, "rm", "-f", self.PATH], check=True)


def describe():
    """Nothing that names the machine: no host, no path."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as cpuinfo:
        model = re.search(r"model name\s*:\s*(.*)", cpuinfo.read())
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        memory = int(re.search(r"MemTotal:\s*(\d+)", meminfo.read())[1])
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 1024 / 1024),
        "kernel": ".".join(platform.release().split("-")[0].split(".")[:3]),
        "virtual": os.path.exists("/sys/hypervisor") or "hypervisor" in open("/proc/cpuinfo", encoding="ascii", errors="replace").read(),
    }


VERSIONS = {
    "nginx": (["nginx", "-v"], r"nginx/(\S+)"),
    "varnish": (["varnishd", "-V"], r"varnish-(\d\S*)"),
    "haproxy": (["haproxy", "-v"], r"version (\d+\.\d+\.\d+)"),
    "trafficserver": (["traffic_server", "-V"], r"Traffic Server (\d\S*)"),
    "squid": (["squid", "-v"], r"Version (\S+)"),
    "wrk": (["wrk", "-v"], r"wrk \S*?(\d+\.\d+\.\d+)"),
    "h2load": (["h2load", "--version"], r"nghttp2/(\S+)"),
}


def versions(larder):
    found = {}
    for name, (command, pattern) in {"larder": ([larder, "--version"], r"larder (\d\S*)"), **VERSIONS}.items():
        if not shutil.which(command[0]):
            continue
        output = subprocess.run(command, capture_output=True, text=True, check=False)
        if match := re.search(pattern, output.stdout + output.stderr):
            found[name] = match[1]
    return found
