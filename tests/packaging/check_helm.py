"""The chart: by Helm's own library (lint, rendering, the schema of values), and its objects by the schemas of Kubernetes."""

import base64
import json
import re

import helm_python as helm
import kubernetes_validate
import yaml
from harness import ROOT, check, fails, fresh, larder, need

CHART = ROOT / "packaging" / "helm" / "larder"
# The youngest, and the oldest whose schemas are to be had.
RELEASES = ["1.33", "1.37"]
# With what is templates to Prometheus and has to be left alone by Helm.
RULES = "groups:\n  - name: a\n    rules:\n      - {alert: B, expr: up == 0, labels: {severity: page}, annotations: {a: '{{ $labels.job }}'}}\n"
# What is off by default, on; and the other way round.
EVERYTHING = {
    "replicas": 3,
    "image": {"repository": "registry.example/larder", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "upstream": ["http://a:9000", "http://b:9000"],
    "redis": {"url": ["redis://r-0.r:6379", "redis://r-1.r:6379"], "username": "larder"},
    "secrets": {"nodeSecret": "ab" * 32, "adminToken": "secret", "redisPassword": "password"},
    "env": [{"name": "LARDER_L1__MAX_BYTES", "value": "256MiB"}],
    "envFrom": [{"secretRef": {"name": "more"}}],
    "persistence": {"storageClass": "fast", "whenScaled": "Delete"},
    "service": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "annotations": {"a": "b"}},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "hosts": [{"host": "shop.example", "paths": [{"path": "/"}]}],
        "tls": [{"secretName": "tls", "hosts": ["shop.example"]}],
    },
    "autoscaling": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "adminFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "files": {"alerts": RULES, "recording": RULES}},
    "priorityClassName": "high",
    "nodeSelector": {"disk": "nvme"},
    "tolerations": [{"key": "cache", "operator": "Exists"}],
}
LITTLE = {
    "replicas": 1,
    "persistence": {"enabled": False},
    "secrets": {"existing": "mine"},
    "serviceAccount": {"create": False},
    "podDisruptionBudget": {"maxUnavailable": ""},
}
CASES = {"defaults": {}, "everything": EVERYTHING, "little": LITTLE}


def rendered(values: dict) -> dict:
    """The objects, by kind and name."""
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        manifests = chart.render(values, name="demo", namespace="shop")
    place = fresh("rendered")
    objects = {}
    for path, text in manifests.items():
        (place / path.replace("/", "-")).write_text(text)
        if path.endswith(".yaml"):
            each = [one for one in yaml.safe_load_all(text) if one]
            objects |= {f"{one['kind']}/{one['metadata']['name']}": one for one in each}
    return objects


def container(objects: dict) -> dict:
    return objects["StatefulSet/demo-larder"]["spec"]["template"]["spec"]["containers"][0]


@check
def the_chart_has_no_complaints():
    report = helm.lint(str(CHART), strict=True)
    worse = [message for message in report["messages"] if message["severity"] > 1]
    need(not worse and not report["errors"], json.dumps(report))


@check
def the_chart_makes_objects_that_kubernetes_knows():
    for name, values in CASES.items():
        for key, each in rendered(values).items():
            if each["apiVersion"].startswith("monitoring.coreos.com/"):
                continue
            for release in RELEASES:
                try:
                    kubernetes_validate.validate(each, release, strict=True)
                except kubernetes_validate.ValidationError as error:
                    need(False, f"{name}: {key} of {release}: {error}")
    wrong = rendered({})["StatefulSet/demo-larder"]
    wrong["spec"]["replica"] = 1
    with fails("a field that is none"):
        kubernetes_validate.validate(wrong, RELEASES[-1], strict=True)


@check
def the_charts_values_are_all_described():
    described = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: dict, schema: dict, path: str):
        known = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            return
        for key, value in values.items():
            need(key in known, f"{path}{key} is not in the schema")
            if isinstance(value, dict):
                compare(value, known[key], f"{path}{key}.")
        missing = set(known) - set(values) - {"global"}
        need(not missing, f"{path}: only in the schema: {missing}")

    compare(yaml.safe_load((CHART / "values.yaml").read_text()), described, "")
    wrong = [
        {"replica": 2},
        {"redis": {"url": ["http://a"]}},
        {"secrets": {"nodeSecret": "short"}},
        {"persistence": {"accessModes": ["ReadWriteMany"]}},
        {"image": {"digest": "0"}},
    ]
    for values in wrong:
        with fails(f"the values {values}"):
            rendered(values)


@check
def the_charts_services_find_the_gateways():
    for values in CASES.values():
        objects = rendered(values)
        stateful = objects["StatefulSet/demo-larder"]["spec"]
        labels = stateful["template"]["metadata"]["labels"]
        ports = {port["name"] for port in container(objects)["ports"]}
        for key, each in objects.items():
            if each["kind"] == "Service":
                need(each["spec"]["selector"].items() <= labels.items(), f"{key} finds nobody")
                need(all(port["targetPort"] in ports for port in each["spec"]["ports"]), f"{key}: no such port")
        need(f"Service/{stateful['serviceName']}" in objects, "no headless service")
        test = objects["Pod/demo-larder-health"]
        need(test["metadata"]["labels"]["app.kubernetes.io/name"] != labels["app.kubernetes.io/name"], "a test is served to")
        budget = objects.get("PodDisruptionBudget/demo-larder")
        need((budget is None) == (values is LITTLE), "a budget where none is wanted")


@check
def the_charts_gateways_have_few_rights():
    for name, values in CASES.items():
        for key, each in rendered(values).items():
            if each["kind"] not in ("StatefulSet", "Pod"):
                continue
            pod = each["spec"]["template"]["spec"] if each["kind"] == "StatefulSet" else each["spec"]
            need(pod["automountServiceAccountToken"] is False, f"{name}: {key} has the cluster's token")
            outer, inner = pod["securityContext"], pod["containers"][0]["securityContext"]
            need(outer["runAsNonRoot"] and outer["seccompProfile"]["type"] == "RuntimeDefault", f"{name}: {key}")
            need(inner["readOnlyRootFilesystem"] and not inner["allowPrivilegeEscalation"], f"{name}: {key}")
            need(inner["capabilities"]["drop"] == ["ALL"], f"{name}: {key} has capabilities")
            text = json.dumps(each)
            need("password" not in text or "redis-password" in text, f"{name}: {key} has a password in it")
            need('"secret"' not in text.replace('"secret":', "").replace('"name": "secret"', ""), f"{name}: {key}")


@check
def the_charts_configuration_is_valid():
    for name, values in CASES.items():
        objects = rendered(values)
        file = fresh("rendered-config") / "larder.toml"
        file.write_text(objects["ConfigMap/demo-larder"]["data"]["larder.toml"])
        given = {each["name"]: each.get("value", "given") for each in container(objects)["env"]}
        # `check` reads files and variables; what stands for a flag is not looked at.
        given["LARDER_ADMIN__TOKEN"] = given.pop("LARDER_ADMIN_TOKEN")
        given.pop("LARDER_UPSTREAM", None)
        if redis := given.pop("LARDER_REDIS", None):
            given["LARDER_L2__URL"] = redis
        need(larder("check", file, **given), f"{name}: nothing was checked")


@check
def the_chart_makes_secrets_once():
    drawn = rendered({})["Secret/demo-larder"]["data"]
    node = base64.b64decode(drawn["node-secret"]).decode()
    need(re.fullmatch(r"[0-9a-f]{64}", node), "the node secret is not one")
    need(len(base64.b64decode(drawn["admin-token"])) == 40 and "redis-password" not in drawn, "other keys")
    need(rendered({})["Secret/demo-larder"]["data"] != drawn, "the same secret for everybody")
    need("lookup" in (CHART / "templates/secret.yaml").read_text(), "an upgrade would draw another")
    need("Secret/demo-larder" not in rendered(LITTLE), "a secret beside the existing one")
    given = rendered(EVERYTHING)["Secret/demo-larder"]["data"]
    need(base64.b64decode(given["node-secret"]).decode() == "ab" * 32, "not the secret that was given")


@check
def the_charts_rules_are_those_of_the_files():
    place, files = ROOT / "dashboards" / "prometheus", {"alerts": RULES, "recording": RULES}
    if place.exists():
        files = {name: (place / f"{name}.yml").read_text() for name in files}
    objects = rendered({"prometheusRule": {"enabled": True, "files": files}})
    groups = objects["PrometheusRule/demo-larder"]["spec"]["groups"]
    need(groups == [group for name in sorted(files) for group in yaml.safe_load(files[name])["groups"]], "other rules")
    with fails("a rule without rules"):
        rendered({"prometheusRule": {"enabled": True}})


@check
def the_charts_stop_is_in_order():
    objects = rendered({})
    pod = objects["StatefulSet/demo-larder"]["spec"]["template"]["spec"]
    drain = int(re.search(r'^drain_timeout = "(\d+)s"', (ROOT / "config/default.toml").read_text(), re.M)[1])
    pause = container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]
    need(pod["terminationGracePeriodSeconds"] > pause + drain, "gateways are killed before they have drained")
