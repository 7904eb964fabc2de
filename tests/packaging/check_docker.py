"""The image: the Dockerfile by its linter, what its build is given, and whether the binary finds its libraries in it."""

import json
import os
import re
import shutil

from harness import LARDER, ROOT, WORK, check, found, fresh, need, run, tool

DOCKERFILE = (ROOT / "Dockerfile").read_text()
# What gcr.io/distroless/cc-debian12 has: the packages libc6, libgcc-s1, libgomp1, libssl3 and libstdc++6.
LIBRARIES = {"libc.so.6", "libm.so.6", "libmvec.so.1", "libgcc_s.so.1", "libstdc++.so.6", "libgomp.so.1"}
GLIBC = (2, 36)


@check
def the_dockerfile_has_no_complaints():
    run(WORK / "venv/bin/hadolint", "--failure-threshold", "style", ROOT / "Dockerfile")


@check
def the_image_is_not_root_and_says_how_it_is():
    user = found(r"^USER (\S+)", DOCKERFILE)
    need(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), f"USER {user} is no number, which Kubernetes needs")
    for wanted in ["HEALTHCHECK ", "STOPSIGNAL SIGTERM", "VOLUME /var/lib/larder", "EXPOSE 8080 8081", "--locked"]:
        need(wanted in DOCKERFILE, f"no {wanted}")
    need(":latest" not in DOCKERFILE, "an image without a version")
    words = json.loads(found(r"^HEALTHCHECK .* CMD (\[.*\])$", DOCKERFILE))
    run(LARDER, *words[1:], "--help")


def context():
    """What `docker build` would be given: .dockerignore here is `*`, and what is taken out of that."""
    place = fresh("context")
    lines = [line.strip() for line in (ROOT / ".dockerignore").read_text().splitlines()]
    rules = [line for line in lines if line and not line.startswith("#")]
    need(rules[0] == "*" and all(rule.startswith("!") for rule in rules[1:]), "not a list of what is let in")
    for name in [rule[1:] for rule in rules[1:]]:
        source, target = ROOT / name, place / name
        need(source.exists(), f"{name} of .dockerignore is not there")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    return place


@check
def the_build_is_given_all_it_reads():
    place = context()
    # Not `--no-deps`: the lock file has to do, as with `cargo build --locked`.
    run("cargo", "metadata", "--locked", "--format-version=1", "--manifest-path", place / "Cargo.toml")
    for source in place.glob("src/**/*.rs"):
        if source.name == "tests.rs":
            continue
        for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
            need((source.parent / name).exists(), f"{name}, which {source.relative_to(place)} includes, is left out")
    for name in re.findall(r"install -D --mode=0644 (\S+)", DOCKERFILE):
        need((place / name).exists(), f"{name} is left out")


@check
def the_binary_finds_its_libraries_in_the_image():
    needed = {os.path.basename(name) for name in re.findall(r"^\s*(\S+\.so\.\S+) ", run(tool("ldd"), LARDER), re.M)}
    strange = {name for name in needed if name not in LIBRARIES and not name.startswith(("linux-vdso", "ld-linux"))}
    need(not strange, f"not in the image: {', '.join(sorted(strange))}")
    base = found(r"^ARG BUILD_IMAGE=rust:[0-9.]+-(\w+)", DOCKERFILE), found(r"^ARG RUNTIME_IMAGE=\S+-debian(\d+)", DOCKERFILE)
    need(base == ("bookworm", "12"), f"built and run on different Debians: {base}")
    versions = {tuple(map(int, each.split(b"."))) for each in re.findall(rb"GLIBC_(2\.\d+)", LARDER.read_bytes())}
    if "bookworm" in open("/etc/os-release").read():
        need(max(versions) <= GLIBC, f"it needs glibc {max(versions)}")
