"""The tree, the tarball and the .deb of packaging/build.py; with the binary of the tests, which is large: not compressed."""

import importlib.util
import re
import tarfile

from harness import CARGO_TOML, LARDER, ROOT, check, fresh, need, run, tool

SPEC = importlib.util.spec_from_file_location("build", ROOT / "packaging/build.py")
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)

# In the place of the binary where only its being there counts.
STAND_IN = b"#!/bin/sh\nexec '%s' \"$@\"\n# GLIBC_2.34 GLIBCXX_3.4.30\n" % str(LARDER).encode()


def stand_in(place):
    binary = place / "larder"
    binary.write_bytes(STAND_IN)
    binary.chmod(0o755)
    return binary


@check
def the_tarball_is_the_same_each_time():
    made = []
    for place in [fresh("tarball-1"), fresh("tarball-2")]:
        binary = stand_in(place)
        build.lay_out(binary, place / "root")
        made.append(build.tarball(place / "root", "larder"))
    need(made[0].read_bytes() == made[1].read_bytes(), "two of them differ")
    with tarfile.open(made[0]) as archive:
        entries = {entry.name: entry for entry in archive}
    need(all(entry.uid == 0 and entry.mtime == 0 for entry in entries.values()), "somebody's, or some time's")
    wanted = {
        "larder/usr/bin/larder": 0o755,
        "larder/usr/lib/systemd/system/larder.service": 0o644,
        "larder/usr/lib/systemd/system/larder.socket": 0o644,
        "larder/usr/share/man/man1/larder-disk-gc.1.gz": 0o644,
        "larder/usr/share/bash-completion/completions/larder": 0o644,
        "larder/usr/share/doc/larder/default.toml": 0o644,
        "larder/etc/larder/larder.toml": 0o640,
    }
    for name, mode in wanted.items():
        need(name in entries and entries[name].mode == mode, f"{name} is missing, or has another mode")


@check
def the_debian_package_is_one():
    dpkg, place = tool("dpkg-deb"), fresh("deb")
    binary = stand_in(place)
    build.lay_out(binary, place / "root")
    made = build.deb(place / "root", binary, compression="none")
    fields = dict(re.findall(r"^ ?([A-Z][\w-]+): (.*)$", run(dpkg, "--info", made), re.M))
    need(fields["Version"] == CARGO_TOML["package"]["version"], fields)
    need("libc6 (>= 2.34), libgcc-s1, libstdc++6 (>= 12)" in fields["Depends"], fields["Depends"])
    run(dpkg, "--extract", made, place / "extracted")
    need((place / "extracted/usr/bin/larder").exists(), "no binary")
    for name in ["postinst", "prerm", "postrm"]:
        run("sh", "-n", ROOT / "packaging/deb" / name)
    need(run(dpkg, "--info", made, "conffiles") == "/etc/larder/larder.toml", "an upgrade would write over the configuration")


@check
def the_debian_packages_libraries():
    said = build.depends(LARDER)
    need(re.fullmatch(r"libc6 \(>= 2\.\d+\), libgcc-s1, libstdc\+\+6 \(>= 1\d\), .*", said), said)
