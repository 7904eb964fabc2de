"""The unit: by systemd itself, and by what a gateway really asks the kernel for."""

import http.client
import os
import re
import signal
import socket
import subprocess
import threading
import time

from harness import LARDER, ROOT, Failed, Skipped, check, found, fresh, larder, need, run, tool

PLACE = ROOT / "packaging" / "systemd"
UNIT = (PLACE / "larder.service").read_text()
# 10 is unprotected. What is left is for its sockets (0.9), and that it sees the root directory and the clock.
EXPOSURE_MAX = 1.1


def unit():
    """The unit as it is installed, but for where the binary is."""
    place = fresh("systemd") / "larder.service"
    place.write_text(UNIT.replace("/usr/bin/larder", str(LARDER)))
    return place


@check
def the_unit_is_understood():
    said = run(tool("systemd-analyze"), "verify", "--man=no", unit())
    need("larder.service" not in said, said)


@check
def the_unit_is_hardened():
    said = run(tool("systemd-analyze"), "security", "--offline=true", "--no-pager", unit())
    exposure = found(r"Overall exposure level for larder\.service: ([0-9.]+)", said)
    need(float(exposure) <= EXPOSURE_MAX, f"exposure {exposure}, at most {EXPOSURE_MAX}")


@check
def the_unit_goes_with_the_gateway():
    larder("serve", "--help")
    drain = found(r'^drain_timeout = "(\d+)s"', (ROOT / "config/default.toml").read_text())
    need(int(found(r"^TimeoutStopSec=(\d+)s", UNIT)) > int(drain), "it is killed before it has drained")
    code = found(r"^pub const EXIT_CODE: u8 = (\d+)", (ROOT / "src/config/mod.rs").read_text())
    need(found(r"^RestartPreventExitStatus=(\d+)", UNIT) == code, "a wrong configuration is tried again and again")
    larder("check", PLACE / "larder.toml", LARDER_DATA_DIR="/var/lib/larder")


@check
def the_sockets_are_understood():
    place = unit().parent / "larder.socket"
    place.write_text((PLACE / "larder.socket").read_text())
    said = run(tool("systemd-analyze"), "verify", "--man=no", place)
    need("larder.socket" not in said, said)


def handed_over(sockets, directory):
    """A gateway to which these are handed over as systemd does it, and the line that says where it listens."""
    def settle():
        for place, one in enumerate(sockets, 3):
            os.dup2(one.fileno(), place, inheritable=True)

    # The number of the process is to be in its environment, which is known to a shell of the same number.
    start = f'LISTEN_PID=$$ LISTEN_FDS={len(sockets)} exec "$0" serve --data-dir "$1" --listen 127.0.0.1:1 --admin 127.0.0.1:2'
    process = subprocess.Popen(
        ["sh", "-c", start, str(LARDER), str(directory)],
        preexec_fn=settle, close_fds=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    for line in process.stdout:
        if "data listening" in line:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, line
    raise Failed(f"it ended with {process.wait()}")


@check
def nobody_is_refused_while_it_restarts():
    directory = fresh("sockets")
    # Above the places where the gateway finds them.
    spare = [open(os.devnull) for _ in range(4)]  # noqa: SIM115
    sockets = [socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(2)]
    ports = [one.getsockname()[1] for one in sockets]
    process, line = handed_over(sockets, directory)
    need(str(ports[0]) in line, f"it listens elsewhere: {line}")
    answered, refused, done = [], [], threading.Event()

    def ask():
        while not done.is_set():
            try:
                connection = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=20)
                connection.request("GET", "/", headers={"connection": "close"})
                answered.append(connection.getresponse().status)
            except OSError as why:
                refused.append(why)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(3):
            before = len(answered)
            while len(answered) < before + 20:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            process, _ = handed_over(sockets, directory)
        before = len(answered)
        while len(answered) < before + 20:
            time.sleep(0.01)
    finally:
        done.set()
        asking.join()
        process.kill()
        process.wait()
        for one in [*sockets, *spare]:
            one.close()
    # There is no route: an answer says so.
    need(not refused and len(set(answered)) == 1, f"{len(refused)} refused: {refused[:2]}, of {len(answered)}")


@check
def the_user_is_made():
    run(tool("systemd-sysusers"), "--dry-run", PLACE / "larder.sysusers")
    user = found(r"^u (\S+)", (PLACE / "larder.sysusers").read_text())
    need(found(r"^User=(\S+)", UNIT) == user == found(r"^StateDirectory=(\S+)", UNIT), "another user than the unit's")


def calls(name: str) -> set:
    """The system calls of a filter set, those of the sets in it included."""
    said = run("systemd-analyze", "syscall-filter", "--no-pager", name)
    words = {line.strip() for line in said.splitlines()[1:] if line.startswith("    ") and "#" not in line}
    return {word for word in words if word[0] != "@"}.union(*(calls(word) for word in words if word[0] == "@"))


@check
def the_unit_lets_the_gateway_do_its_work():
    strace, trace = tool("strace"), fresh("strace") / "trace"
    tool("systemd-analyze")
    try:
        run(strace, "-f", "-qq", "-o", trace, LARDER, "demo")
    except Failed as why:
        if "ptrace" in str(why) or "PTRACE" in str(why):
            raise Skipped("processes cannot be traced here") from why
        raise
    lines = trace.read_text(errors="replace").splitlines()
    # What comes before the gateway is its loader, started by systemd.
    used = set(re.findall(r"^\d+ +(\w+)\(", "\n".join(lines), re.M))
    allowed = calls(found(r"^SystemCallFilter=(@\S+)$", UNIT))
    for name in found(r"^SystemCallFilter=~(.*)$", UNIT).split():
        allowed -= calls(name)
    # The loader of the program, which systemd lets through in any case, and calls the C library does without.
    spared = {"arch_prctl", "execve", "rseq", "set_robust_list"}
    need(used - allowed <= spared, f"not let through: {sorted(used - allowed - spared)}")
    need("accept4" in used, "the demonstration served nobody")
    executable = [line for line in lines if re.search(r"\b(mmap|mprotect)\(.*PROT_WRITE\|PROT_EXEC", line)]
    made = [line for line in lines if "mprotect(" in line and "PROT_EXEC" in line]
    need(not executable and not made, f"MemoryDenyWriteExecute would refuse: {(executable + made)[:1]}")
    families = set(re.findall(r"\bsocket\((AF_\w+)", "\n".join(lines)))
    need(families <= {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"}, f"other sockets: {families}")
