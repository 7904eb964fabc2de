"""The compose file, by a parser of the specification, and each file it mounts by the program that reads it."""

import json
import re

import compose_spec
import yaml
from harness import ROOT, Failed, Skipped, check, fails, larder, need, run, tool

PLACE = ROOT / "packaging" / "compose"
# With the defaults of its variables, as with an .env that has nothing but the token.
TEXT = re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}", lambda match: match[1] or "secret", (PLACE / "compose.yml").read_text())
COMPOSE = yaml.safe_load(TEXT)


def parsed(compose: dict):
    """As the specification has it; merge keys are resolved before."""
    project = compose_spec.PyCompose.from_json(json.dumps(compose))
    for part in ["networks", "volumes", "secrets", "configs"]:
        getattr(project, f"validate_{part}")()
    return project


@check
def the_compose_file_is_one():
    parsed(COMPOSE)
    with fails("a service with an unknown key"):
        parsed({"services": {"a": {"image": "b", "imagge": "c"}}})
    with fails("a network that is none"):
        parsed({"services": {"a": {"image": "b", "networks": ["c"]}}})


@check
def the_compose_file_is_a_fleet():
    services = COMPOSE["services"]
    gateways = [service for name, service in services.items() if name.startswith("gateway-")]
    need(len(gateways) == 3, "not three gateways")
    need(len([name for name in services if re.fullmatch(r"redis-\d", name)]) == 6, "not six nodes of Redis")
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        need(re.search(r"\d", tag) and tag != "latest", f"{name}: the image has no version")
        for other in service.get("depends_on", []):
            need(other in services, f"{name} waits for {other}, which is none")
        for port in service.get("ports", []):
            need(port.startswith("127.0.0.1:"), f"{name} is open to the network: {port}")
    front = COMPOSE["networks"]["front"]["ipam"]["config"][0]["subnet"]
    need(f'trusted = ["{front}"]' in (PLACE / "larder.toml").read_text(), "the balancer is not believed")
    addresses = [services[f"redis-{n}"]["networks"]["redis"]["ipv4_address"] for n in range(1, 7)]
    need(all(f"{each}:6379" in services["redis-cluster"]["command"][0] for each in addresses), "other addresses")


@check
def what_the_compose_file_mounts_is_there():
    missing = []
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if not source.startswith("."):
                need(source in COMPOSE["volumes"], f"{name}: no volume {source}")
            elif not (PLACE / source).exists():
                missing.append(source)
    need(all("dashboards/" in source for source in missing), f"not there: {missing}")
    if missing and not (ROOT / "dashboards").exists():
        raise Skipped("there is no dashboards/ yet")
    need(not missing, f"not there: {missing}")


@check
def the_configuration_of_the_compose_file():
    variables = dict(COMPOSE["services"]["gateway-1"]["environment"])
    image = {"LARDER_DATA_DIR": "/var/lib/larder", "LARDER_LISTEN__DATA": "0.0.0.0:8080"}
    larder("check", PLACE / "larder.toml", **image, LARDER_ADMIN__TOKEN=variables.pop("LARDER_ADMIN_TOKEN"), **variables)


@check
def the_balancer_of_the_compose_file():
    # Names of the other containers are not known here, which is a warning.
    run(tool("haproxy"), "-c", "-f", PLACE / "haproxy.cfg")


@check
def the_prometheus_of_the_compose_file():
    run(tool("promtool"), "check", "config", "--syntax-only", PLACE / "prometheus.yml")
    job = yaml.safe_load((PLACE / "prometheus.yml").read_text())["scrape_configs"][0]
    need(job["job_name"] == "larder" and len(job["static_configs"][0]["targets"]) == 3, "not the three gateways")


@check
def the_origin_of_the_compose_file():
    nginx = tool("nginx")
    conf = ROOT / "target" / "packaging" / "nginx.conf"
    conf.write_text(f"pid {conf}.pid;\nevents {{}}\nhttp {{ include {PLACE}/origin.conf; }}\n")
    try:
        run(nginx, "-t", "-c", conf, "-e", "stderr")
    except Failed as why:
        # That it cannot listen or keep files here says nothing of what it was given.
        need("syntax is ok" in str(why), str(why))
