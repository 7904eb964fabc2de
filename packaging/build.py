#!/usr/bin/env python3
"""Lays out what a system's package has: binary, unit, manual pages, completions, documents; as a tree, a tarball, a .deb.

    build.py [--binary FILE] [--into DIR]

The binary is that of `make dist` (target/dist/larder) unless another is named; pages and completions are its own. What
is written into DIR (target/packages) is the same byte for byte wherever the binary is. The .deb needs dpkg-deb.
"""

import argparse
import gzip
import os
import pathlib
import platform
import re
import shutil
import subprocess
import tarfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
# Everything that has a time has this one, for two builds to be the same.
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Which release of GCC brought which version of the symbols of libstdc++.
LIBSTDCXX = {30: 12, 31: 13, 32: 13, 33: 14, 34: 15}

CONTROL = """\
Package: larder
Version: {version}
Architecture: {architecture}
Maintainer: The Larder authors <larder@localhost>
Section: httpd
Priority: optional
Installed-Size: {size}
Depends: {depends}
Recommends: ca-certificates
Description: HTTP caching gateway for LLM and any other HTTP APIs
 Put in front of an API, or used as a proxy, it answers again what it has been
 answered before: from memory, Redis and disk, with one origin call for any
 number of identical requests at once, and with purges that stay in effect.
"""


def put(source: pathlib.Path, target: pathlib.Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def write(data: bytes, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(0o644)


def said(binary: pathlib.Path, *arguments: str) -> bytes:
    """What the binary writes, whatever is configured here."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("LARDER_")}
    return subprocess.run([binary, *arguments], check=True, capture_output=True, env=env).stdout


def lay_out(binary: pathlib.Path, tree: pathlib.Path) -> None:
    """The files as they lie below the root of a system."""
    shutil.rmtree(tree, ignore_errors=True)
    put(binary, tree / "usr/bin/larder", 0o755)
    put(PACKAGING / "systemd/larder.service", tree / "usr/lib/systemd/system/larder.service")
    put(PACKAGING / "systemd/larder.socket", tree / "usr/lib/systemd/system/larder.socket")
    put(PACKAGING / "systemd/larder.sysusers", tree / "usr/lib/sysusers.d/larder.conf")
    put(PACKAGING / "systemd/larder.toml", tree / "etc/larder/larder.toml", 0o640)
    share = tree / "usr/share"
    write(said(binary, "completions", "bash"), share / "bash-completion/completions/larder")
    write(said(binary, "completions", "zsh"), share / "zsh/vendor-completions/_larder")
    write(said(binary, "completions", "fish"), share / "fish/vendor_completions.d/larder.fish")
    pages = tree.parent / "man1"
    shutil.rmtree(pages, ignore_errors=True)
    said(binary, "man", "--dir", str(pages))
    for page in pages.glob("*.1"):
        write(gzip.compress(page.read_bytes(), 9, mtime=0), share / f"man/man1/{page.name}.gz")
    shutil.rmtree(pages)
    for name in ["README.md", "CHANGELOG.md", "config/default.toml", "config/example.toml"]:
        put(ROOT / name, share / "doc/larder" / pathlib.Path(name).name)
    put(ROOT / "LICENSE", share / "doc/larder/copyright")
    for document in (ROOT / "docs").glob("*.md"):
        put(document, share / "doc/larder/docs" / document.name)
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (EPOCH, EPOCH))


def tarball(tree: pathlib.Path, name: str) -> pathlib.Path:
    """Everything in the order of names, owned by root, at one time."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = EPOCH
        return entry

    made = tree.parent / f"{name}.tar.gz"
    with open(made, "wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(tree, name, recursive=False, filter=plain)
            for path in sorted(tree.rglob("*")):
                archive.add(path, f"{name}/{path.relative_to(tree)}", recursive=False, filter=plain)
    return made


def depends(binary: pathlib.Path) -> str:
    """The libraries the binary is linked with, as old as its symbols allow."""
    data = binary.read_bytes()

    def newest(pattern: bytes) -> int:
        return max(int(number) for number in re.findall(pattern, data))

    glibc, glibcxx = newest(rb"GLIBC_2\.(\d+)"), newest(rb"GLIBCXX_3\.4\.(\d+)")
    gcc = next((release for symbols, release in sorted(LIBSTDCXX.items()) if glibcxx <= symbols), max(LIBSTDCXX.values()))
    libraries = [f"libc6 (>= 2.{glibc})", "libgcc-s1", f"libstdc++6 (>= {gcc})"]
    return ", ".join([*libraries, "systemd | systemd-standalone-sysusers"])


def deb(tree: pathlib.Path, binary: pathlib.Path, compression: str = "xz") -> pathlib.Path:
    """A Debian package of the tree."""
    architecture = ARCHITECTURES[platform.machine()]
    place, made = tree.parent / "deb", tree.parent / f"larder_{VERSION}_{architecture}.deb"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(tree, place)
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1024
    control = CONTROL.format(version=VERSION, architecture=architecture, size=size, depends=depends(binary))
    write(control.encode(), place / "DEBIAN/control")
    write(b"/etc/larder/larder.toml\n", place / "DEBIAN/conffiles")
    for name in ["postinst", "prerm", "postrm"]:
        put(PACKAGING / "deb" / name, place / "DEBIAN" / name, 0o755)
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
    command = ["dpkg-deb", f"-Z{compression}", "--root-owner-group", "--build", place, made]
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
    shutil.rmtree(place)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/dist/larder")
    parser.add_argument("--into", type=pathlib.Path, default=ROOT / "target/packages")
    given = parser.parse_args()
    tree = given.into / "root"
    lay_out(given.binary.resolve(), tree)
    print(tarball(tree, f"larder-{VERSION}-{platform.machine()}-linux"))
    if shutil.which("dpkg-deb"):
        print(deb(tree, given.binary))
    else:
        print("no dpkg-deb here, so no .deb")


if __name__ == "__main__":
    main()
