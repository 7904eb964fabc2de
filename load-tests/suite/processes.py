"""Processes: started on one core, counted with all below them, halted while another is measured, killed at the end.

Nothing outlives `stop_all`, and nothing is touched that was not started here.
"""

import ctypes
import glob
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None)
REAL_TIME = ["chrt", "--fifo", "10"]
started = []
# What everything is started by, beside taskset.
priority = []


class Broken(Exception):
    """A process that did not do what it was started for; the text says what it said."""


def raise_limits():
    """As many open files as are allowed; returns the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A master that dies must not leave its worker to somebody else.
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return hard


def prefer(real_time):
    """Whether what is started from now on is never kept waiting for its slice of time: what is measured then is the
    servers, and not how a scheduler divides two cores among all who want one. Whether that is so."""
    able = real_time and shutil.which("chrt") and subprocess.run([*REAL_TIME, "true"], capture_output=True, check=False).returncode == 0
    priority[:] = REAL_TIME if able else []
    return bool(able)


class Process:
    """A process, and its output up to now in a file."""

    def __init__(self, command, core, directory, leaves=None):
        self.name = os.path.basename(command[0])
        self.leaves = leaves
        self.log = tempfile.NamedTemporaryFile("w+", dir=directory, prefix=f"{self.name}-", suffix=".log", errors="replace")
        self.child = subprocess.Popen(
            [*priority, "taskset", "-c", str(core), *command], stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )
        self.halted = False
        started.append(self)

    @property
    def pid(self):
        return self.child.pid

    def output(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as log:
            return log.read()

    def check(self):
        if self.child.poll() is not None:
            raise Broken(f"{self.name} has ended with {self.child.returncode}: {self.output()[-1500:]}")

    def wait_for_output(self, pattern, seconds=20):
        """The first group of `pattern` in the output."""
        for _ in range(seconds * 50):
            if found := re.search(pattern, self.output()):
                return found[1]
            self.check()
            time.sleep(0.02)
        raise Broken(f"{self.name} does not say {pattern}: {self.output()[-1500:]}")

    def wait_for_port(self, port, seconds=20):
        for _ in range(seconds * 50):
            self.check()
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
        raise Broken(f"{self.name} does not listen: {self.output()[-1500:]}")

    def family(self):
        """The process and all below it."""
        pids = [self.pid]
        for one in pids:
            try:
                tasks = os.listdir(f"/proc/{one}/task")
            except OSError:
                continue
            for task in tasks:
                try:
                    with open(f"/proc/{one}/task/{task}/children", encoding="ascii") as below:
                        pids.extend(int(child) for child in below.read().split())
                except OSError:
                    pass
        return pids

    def cpu_seconds(self):
        """User and system time."""
        ticks = 0
        for one in self.family():
            fields = stat(one)
            ticks += int(fields[11]) + int(fields[12]) if fields else 0
        return ticks / TICK

    def resident_bytes(self):
        """Sum of the resident memory; what two processes share counts twice."""
        return sum(int(fields[21]) * PAGE for one in self.family() if (fields := stat(one)))

    def halt(self):
        self.halted = True
        self.signal(signal.SIGSTOP)

    def go_on(self):
        if self.halted:
            self.halted = False
            self.signal(signal.SIGCONT)

    def signal(self, number):
        for one in self.family():
            try:
                os.kill(one, number)
            except ProcessLookupError:
                pass

    def stop(self):
        if self.child.poll() is None:
            self.signal(signal.SIGKILL)
        self.child.wait()
        self.log.close()
        for left in glob.glob(self.leaves or ""):
            os.unlink(left)
        if self in started:
            started.remove(self)


def stat(pid):
    """The fields of /proc/PID/stat from the third one on."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as text:
            return text.read().rpartition(")")[2].split()
    except OSError:
        return None


def stop_all():
    for process in reversed(list(started)):
        process.stop()
    # Workers whose master was killed first are ours now.
    try:
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
    except ChildProcessError:
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Peak:
    """Resident memory while something runs: the highest value seen, and the last."""

    def __init__(self, process):
        self.process = process
        self.before = self.highest = self.last = process.resident_bytes()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while not self.ended.wait(0.25):
            self.last = self.process.resident_bytes()
            self.highest = max(self.highest, self.last)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
