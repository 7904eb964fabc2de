"""A place of its own in which the commands of one document run: a home, a path with `larder` on it, and free ports.

Addresses in documents (127.0.0.1:8080, redis://10.0.0.5:6379, http://app:9000) become free ports of this machine. Before the
first command there are a Redis, the shop of examples/shop.py at port 9000, a simulated provider of models, and a gateway at
8080 and 8081. The first block that starts gateways of its own ends that one. In documents to be followed from the beginning to
the end, the reader ends what he has started; in others each block with a gateway stands for itself.
"""

import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LARDER = pathlib.Path(os.environ.get("LARDER") or ROOT / "target" / "debug" / "larder").resolve()
PATIENCE = 60  # seconds for one command
ADDRESS = re.compile(r"((?:127\.0\.0\.1|localhost|0\.0\.0\.0|10\.0\.0\.\d+|\bapp):)(\d{4,5})\b")
PORT = re.compile(r"((?:--port|-p|shop\.py) )(\d{4,5})\b")
ENDS = r"(?: *&|\s*$|\s+#)"
# Commands that go on until they are ended.
ENDLESS = r"larder tail|larder top(?! --once)|curl -N \S+/requests/stream"

SERVES = (
    r"(?:[A-Z0-9_]+=\S*(?: |\\\n)+)*"
    rf"(?:(?:larder|target/release/larder)(?: +(?:serve\b|-)|{ENDS})|cargo run --release(?: -- (?:serve\b|-)|{ENDS}))"
)

# A server is waited for (`settle`) until it says where it listens; it has the usual ports unless something says otherwise.
SHIM = r"""#!/bin/bash
serves=
case "${1:-}" in --version|-V|--help|-h) ;; serve|-*|"") serves=1 ;; esac
case " $* " in *" --listen "*|*" --config "*) ;; *)
  export LARDER_LISTEN__DATA=${LARDER_LISTEN__DATA:-127.0.0.1:DATA} LARDER_LISTEN__ADMIN=${LARDER_LISTEN__ADMIN:-127.0.0.1:ADMIN} ;;
esac
[ -z "$serves" ] || [ -n "$LARDER_ROUTE" ] || case " $* " in *" --config "*) ;; *) export LARDER_ROUTE=$DOCS_ROUTES ;; esac
[ -n "$serves" ] || exec REAL "$@"
echo $$ >"$STAGE/servers/$$"
# Over Redis, a gateway that has just begun asks the origin to confirm all, until it knows of all purges.
case "$LARDER_REDIS $*" in *redis*) touch "$STAGE/servers/$$.fleet" ;; *--config*) grep -q "^url = \"redis:" "${@: -1}" \
  && touch "$STAGE/servers/$$.fleet" ;; esac
exec REAL "$@" >"$STAGE/servers/$$.out" 2>&1
"""
SETTLE = r"""
# settle N: until N gateways have been started in all, and each of them listens, or has ended.
settle() {
  local n=0 each
  while [ $n -lt 400 ]; do
    local waits=
    [ "$(ls "$STAGE/servers" "$STAGE/ended" | grep -c "out$")" -ge "$1" ] || waits=1
    for each in "$STAGE"/servers/*.out; do
      [ -e "$each" ] || continue
      local listens="admin listening"
      [ -e "${each%.out}.fleet" ] && listens="up to date with the fleet"
      grep -q "$listens" "$each" && continue
      if kill -0 "$(basename "$each" .out)" 2>/dev/null; then waits=1; else cat "$each" >>"$STAGE/died"; mv "$each" "$STAGE/ended"; fi
    done
    [ -n "$waits" ] || return 0
    sleep 0.05; n=$((n + 1))
  done
}
clear_servers() {
  local each
  for each in "$STAGE"/servers/*.out; do
    [ -e "$each" ] || continue
    local pid=$(basename "$each" .out)
    kill -9 "$pid" 2>/dev/null
    while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
    mv "$each" "$STAGE/ended/"; rm -f "$STAGE/servers/$pid" "$STAGE/servers/$pid.fleet"
  done
}
# Ends those that were started before under a name, and notes the one that has just been started.
instead_of() {
  local pid
  for pid in $(cat "$STAGE/$1.pids"); do
    kill "$pid" 2>/dev/null
    while [ -e "/proc/$pid" ] && ! grep -q "^State:.Z" "/proc/$pid/status" 2>/dev/null; do sleep 0.01; done
  done
}
"""


TAKEN: set[int] = set()


def free_port() -> int:
    """A port nobody has and no connection is given by itself: those begin at 32768."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in TAKEN:
            TAKEN.add(port)
            return port


class Stage:
    def __init__(self, name: str):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="larder-docs-"))
        self.ports: dict[str, int] = {}
        self.processes: list[subprocess.Popen] = []
        for each in ("bin", "servers", "ended", "out", "work/target/release", "work/tests", "etc/larder", "data", "home"):
            (self.directory / each).mkdir(parents=True)
        for each in ("examples", "config", "docs", "packaging"):
            (self.directory / "work" / each).symlink_to(ROOT / each)
        self._programs()
        self._surroundings()

    def port(self, named) -> int:
        """The free port that stands for one of the documents."""
        return self.ports.setdefault(str(named), 0) or self.ports.update({str(named): free_port()}) or self.ports[str(named)]

    def placed(self, text: str) -> str:
        """A command, or a file, with addresses and paths of this place."""
        text = ADDRESS.sub(lambda found: f"127.0.0.1:{self.port(found[2])}", text)
        text = PORT.sub(lambda found: f"{found[1]}{self.port(found[2])}", text)
        text = re.sub(r"(?<![\w.])/etc/larder\b", str(self.directory / "etc/larder"), text)
        return re.sub(r"(?<=LARDER_DATA_DIR=)/data\b", str(self.directory / "data"), text)

    def _programs(self) -> None:
        shim = SHIM.replace("REAL", str(LARDER)).replace("DATA}", f"{self.port(8080)}}}").replace("ADMIN}", f"{self.port(8081)}}}")
        cargo = '#!/bin/bash\n[ "$1 $2" = "run --release" ] || exit 1\nshift 2; [ "$1" = -- ] && shift\nexec larder "$@"\n'
        redis = f'#!/bin/bash\nexec {shutil.which("redis-cli")} -p {self.port(6379)} "$@"\n'
        python = '#!/bin/bash\nexec python3 "$@"\n'
        for name, text in {"larder": shim, "cargo": cargo, "redis-cli": redis, "python": python}.items():
            place = self.directory / "bin" / name
            place.write_text(text)
            place.chmod(0o755)
        (self.directory / "work/target/release/larder").symlink_to(self.directory / "bin/larder")
        for source in HERE.glob("files/*"):
            (self.directory / "work" / source.name).write_text(self.placed(source.read_text()))

    def _surroundings(self) -> None:
        redis = self.start("redis-server", "--port", str(self.port(6379)), "--save", "", "--dir", str(self.directory))
        shop = self.start("python3", str(ROOT / "examples/shop.py"), str(self.port(9000)))
        (self.directory / "redis.pids").write_text(f"{redis}\n")
        (self.directory / "shop.pids").write_text(f"{shop}\n")
        self.start("python3", str(ROOT / "tests/sdk/provider.py"), str(self.port("provider")))
        until = time.monotonic() + 20
        for named in (6379, 9000, "provider"):
            while socket.socket().connect_ex(("127.0.0.1", self.port(named))):
                if time.monotonic() > until:
                    raise RuntimeError(f"nobody listens for {named}")
                time.sleep(0.02)
        shop, models = (f"http://127.0.0.1:{self.port(named)}" for named in (9000, "provider"))
        config = self.placed((HERE / "stage.toml").read_text())
        self.config = self.directory / "stage.toml"
        self.config.write_text(config.replace("SHOP", shop).replace("MODELS", models))
        routes = f'{{ name = "openai", path = "/openai", strip_path = true, upstream = "{models}", protocol = "openai" }}'
        hosts = f'{{ name = "api", host = "api.openai.com", upstream = "{models}", protocol = "openai" }}'
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("LARDER", "REDIS"))}
        self.env |= {
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.directory / "home"),
            "STAGE": str(self.directory),
            "DOCS_ROUTES": f"[{routes}, {hosts}]",
            "LARDER_ADMIN_URL": f"http://127.0.0.1:{self.port(8081)}",
            # A machine that is busy with other things makes no misses.
            "LARDER_L2__READ_TIMEOUT": "2s",
            "LARDER_FLEET__CONFIRM_TIMEOUT": "2s",
            "OPENAI_API_KEY": "sk-docs",
            "KEY": "sk-docs",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, *command: str) -> int:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        return process.pid

    def run(self, blocks: list, in_order: bool) -> dict:
        """Runs commands, block by block, in one shell: what each said, and what it ended with."""
        script = ["cd \"$STAGE/work\"", SETTLE, 'larder --config "$STAGE/stage.toml" & settle 1'] if blocks else []
        at, started, cleared = 0, 1, False
        for block in blocks:
            if not (cleared and in_order) and any(re.match(SERVES, command.text) for command in block):
                script.append("clear_servers")
                cleared = True
            for command in block:
                text = self.placed(command.text)
                if re.match(SERVES, text) and not re.search(r"&\s*(#.*)?$", text):
                    text = re.sub(r"\s*(#.*)?$", "", text, count=1) + " &"
                endless = re.match(ENDLESS, text)
                if endless:
                    # The reader ends it with Ctrl-C; here it has to be there still after a second.
                    text = f"timeout 1 {text}"
                background = re.match(r"python3 examples/(shop)\.py|(redis)-server", text)
                name = background and (background[1] or background[2])
                if name:
                    script.append(f"instead_of {name}")
                script.append(f'{{\n{text}\n}} >"$STAGE/out/{at}" 2>&1 </dev/null; ended=$?')
                script.append(f'{"[ $ended = 124 ] && ended=0; " if endless else ""}echo $ended >"$STAGE/out/{at}.status"')
                if re.match(SERVES, command.text):
                    started += 1
                    script.append(f"settle {started}")
                if name:
                    port = self.port(9000 if name == "shop" else 6379)
                    script.append(f'echo $! >>"$STAGE/{name}.pids"')
                    script.append(f"until (: </dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.02; done")
                at += 1
        (self.directory / "script").write_text("\n".join(script))
        shell = subprocess.Popen(
            ["bash", self.directory / "script"],
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.shell = shell
        try:
            shell.wait(PATIENCE * 2)
        except subprocess.TimeoutExpired:
            pass
        results = {}
        for number in range(at):
            said, status = self.directory / f"out/{number}", self.directory / f"out/{number}.status"
            text = said.read_text(errors="replace") if said.exists() else ""
            results[number] = (text, int(status.read_text()) if status.exists() else None)
        return results

    def died(self) -> str | None:
        """What gateways said that ended before they listened."""
        place = self.directory / "died"
        return place.read_text(errors="replace").strip() if place.exists() else None

    def end(self) -> None:
        if hasattr(self, "shell"):
            # The shell's session: what commands started in the background.
            try:
                os.killpg(self.shell.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in self.processes:
            process.kill()
            process.wait()
        if not os.environ.get("DOCS_KEEP"):
            shutil.rmtree(self.directory, ignore_errors=True)
