"""What `cargo install` gets, what the binary generates, and the versions written in several places."""

import shutil

import yaml
from harness import CARGO_TOML, ROOT, check, found, fresh, larder, need, run, tool

# Twice what it is today.
PACKAGE_BYTES_MAX = 6_000_000


@check
def versions_are_the_same_everywhere():
    version, rust = CARGO_TOML["package"]["version"], CARGO_TOML["package"]["rust-version"]
    chart = yaml.safe_load((ROOT / "packaging/helm/larder/Chart.yaml").read_text())
    dockerfile = (ROOT / "Dockerfile").read_text()
    compose = (ROOT / "packaging/compose/compose.yml").read_text()
    said = {
        "the chart's version": chart["version"],
        "the chart's appVersion": chart["appVersion"],
        "the Dockerfile's VERSION": found(r"^ARG VERSION=(\S+)", dockerfile),
        "the image of compose.yml": found(r"image: larder:\$\{LARDER_VERSION:-(.+)\}", compose),
    }
    for place, other in said.items():
        need(other == version, f"{place} is {other}, Cargo.toml has {version}")
    image = found(r"^ARG BUILD_IMAGE=rust:([0-9.]+)-", dockerfile)
    need(image == rust, f"the Dockerfile compiles with Rust {image}, Cargo.toml asks for {rust}")


@check
def the_package_has_what_it_needs_and_no_more():
    listed = run("cargo", "package", "--list", "--allow-dirty").splitlines()
    for wanted in ["Cargo.lock", "LICENSE", "README.md", "config/default.toml", "config/prices.toml", "src/main.rs"]:
        need(wanted in listed, f"{wanted} is missing")
    for unwanted in ["tests/", "load-tests/", "dashboards/", "packaging/", "target/", "examples/", "benches/"]:
        need(not [name for name in listed if name.startswith(unwanted)], f"{unwanted} is in it")
    size = sum((ROOT / name).stat().st_size for name in listed if (ROOT / name).is_file())
    need(size < PACKAGE_BYTES_MAX, f"it has {size} bytes")


@check
def the_package_says_what_it_is():
    for field in ["description", "license", "readme", "keywords", "categories", "rust-version"]:
        need(CARGO_TOML["package"].get(field), f"no {field} in Cargo.toml")


def completions(shell: str, suffix: str):
    script = fresh(f"completions-{shell}") / f"larder{suffix}"
    script.write_text(larder("completions", shell))
    return script


@check
def completions_for_bash():
    script = completions("bash", ".bash")
    run(tool("bash"), "-n", script)
    # As bash does it: what follows `larder d`.
    ask = f"source {script}; COMP_WORDS=(larder d); COMP_CWORD=1; _larder larder d larder; echo ${{COMPREPLY[*]}}"
    need(run("bash", "-c", ask) == "demo disk", "`larder d` is not completed to demo and disk")


@check
def completions_for_zsh():
    run(tool("zsh"), "-n", completions("zsh", ".zsh"))


@check
def completions_for_fish():
    script = completions("fish", ".fish")
    run(tool("fish"), "--no-execute", script)
    said = run("fish", "--no-config", "-c", f"source {script}; complete --do-complete 'larder d'")
    need([line.split("\t")[0] for line in said.splitlines()] == ["demo", "disk"], f"`larder d` is completed to {said!r}")


def pages() -> list:
    place = fresh("man1")
    larder("man", "--dir", place)
    made = sorted(place.glob("*.1"))
    need(len(made) > 15, f"only {len(made)} pages")
    return made


@check
def manual_pages_are_set_without_a_warning():
    man, made = tool("man"), pages()
    for page in made:
        said = run("env", "LC_ALL=C.UTF-8", "MANWIDTH=80", man, "--warnings", "--local-file", page)
        need("warning" not in said and "LARDER" in said.upper(), f"{page.name}: {said[:300]}")


@check
def manual_pages_are_read_by_mandoc():
    if shutil.which("mandoc"):
        run("mandoc", "-T", "lint", "-W", "error", *pages())
    else:
        tool("mandoc")
