"""What a dashboard is made of: panels said in a line, laid out from left to right, and the JSON that Grafana reads."""

SCHEMA_VERSION = 39  # Grafana 10 and later
WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

# What every expression is about: the chosen instances, and with ROUTE the chosen routes.
NODE = 'job=~"$job",instance=~"$instance"'
ROUTE = NODE + ',route=~"$route"'

DASHBOARDS = [
    ("larder-overview", "Larder: overview"),
    ("larder-tiers", "Larder: tiers"),
    ("larder-purge", "Larder: coalescing and purge"),
    ("larder-llm", "Larder: language models"),
    ("larder-process", "Larder: process"),
]

GOOD, FAIR, BAD = "green", "orange", "red"


def rate(metric: str, labels: str = "", where: str = NODE) -> str:
    """A counter's growth a second."""
    return f"rate({metric}{{{joined(where, labels)}}}[$__rate_interval])"


def total(metric: str, labels: str = "", by: str = "", where: str = NODE) -> str:
    """The same of all instances together, or by these labels."""
    return f"sum{f' by ({by})' if by else ''} ({rate(metric, labels, where)})"


def now(metric: str, labels: str = "", where: str = NODE) -> str:
    """A gauge."""
    return f"{metric}{{{joined(where, labels)}}}"


def quantile(share: float, metric: str, labels: str = "", by: str = "", where: str = NODE) -> str:
    """Of a histogram."""
    return f"histogram_quantile({share}, {total(metric + '_bucket', labels, f'le, {by}' if by else 'le', where)})"


def quantiles(metric: str, labels: str = "") -> list[tuple[str, str]]:
    return [(quantile(share, metric, labels), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)]


def joined(*labels: str) -> str:
    return ",".join(label for label in labels if label)


def steps(*bounds) -> list[dict]:
    """Colours from values on: `steps(BAD, (0.5, FAIR), (0.8, GOOD))`."""
    first, *others = bounds
    return [{"color": first, "value": None}] + [{"color": color, "value": value} for value, color in others]


def queries(targets, **more) -> list[dict]:
    """`targets` is an expression, or a list of expressions with their legends."""
    if isinstance(targets, str):
        targets = [(targets, "__auto")]
    common = {"datasource": SOURCE, "range": True, **more}
    return [
        {"refId": chr(ord("A") + index), "expr": expr, "legendFormat": legend, **common}
        for index, (expr, legend) in enumerate(targets)
    ]


def panel(kind, title, description, targets, w, h, options, defaults, **more) -> dict:
    return {
        "type": kind,
        "title": title,
        "description": " ".join(description.split()),
        "datasource": SOURCE,
        "targets": queries(targets, **more),
        "options": options,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "gridPos": {"w": w, "h": h, "x": 0, "y": 0},
    }


def stat(title, targets, unit, description, colours=None, w=4, h=5, decimals=None) -> dict:
    """A number, coloured by what it means."""
    options = {
        "colorMode": "background" if colours else "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    defaults = {"unit": unit, "thresholds": {"mode": "absolute", "steps": colours or steps("text")}}
    if decimals is not None:
        defaults["decimals"] = decimals
    return panel("stat", title, description, targets, w, h, options, defaults)


def series(title, targets, unit, description, w=8, h=8, stack=False, low=0, high=None, colours=None) -> dict:
    """Lines over time; `stack` where they add up to something."""
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 40 if stack else 8,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if colours else "off"},
    }
    defaults = {
        "unit": unit,
        "custom": custom,
        "color": {"mode": "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": colours or steps("text")},
    }
    if low is not None:
        defaults["min"] = low
    if high is not None:
        defaults["max"] = high
    return panel("timeseries", title, description, targets, w, h, options, defaults)


def heatmap(title, metric, labels, description, w=12, h=8) -> dict:
    """How a histogram's values lie over time."""
    expr = f"sum by (le) (increase({metric}_bucket{{{joined(NODE, labels)}}}[$__rate_interval]))"
    colour = {
        "mode": "scheme",
        "scheme": "Spectral",
        "fill": "dark-orange",
        "exponent": 0.5,
        "steps": 64,
        "reverse": False,
    }
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": colour,
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "unit": "s", "reverse": False},
    }
    return panel("heatmap", title, description, [(expr, "{{le}}")], w, h, options, {}, format="heatmap")


def table(title, targets, unit, description, w=12, h=8) -> dict:
    """The last value of each series, one a line."""
    options = {"showHeader": True, "cellHeight": "sm"}
    built = panel("table", title, description, targets, w, h, options, {"unit": unit}, format="table", instant=True)
    for query in built["targets"]:
        query["range"] = False
    hidden = {"id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": {}}}
    built["transformations"] = [{"id": "merge", "options": {}}, hidden]
    return built


def variable(name, label, query, multi) -> dict:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,  # when the time range changes: instances come and go
        "sort": 1,
        "multi": multi,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def variables() -> list[dict]:
    known = "larder_requests_total"
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return [
        {**source, "current": {"text": "default", "value": "default"}},
        variable("job", "Job", f"label_values({known}, job)", True),
        variable("instance", "Instance", f'label_values({known}{{job=~"$job"}}, instance)', True),
        variable("route", "Route", f"label_values({known}{{{NODE}}}, route)", True),
    ]


def laid_out(rows) -> list[dict]:
    """Rows of panels, each with its place and number."""
    placed, y = [], 0
    for title, panels in rows:
        placed.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": box(0, y, WIDTH, 1)})
        x, y, deepest = 0, y + 1, 0
        for built in panels:
            w, h = built["gridPos"]["w"], built["gridPos"]["h"]
            if x + w > WIDTH:
                x, y, deepest = 0, y + deepest, 0
            built["gridPos"] = box(x, y, w, h)
            placed.append(built)
            x, deepest = x + w, max(deepest, h)
        y += deepest
    return [{"id": number, **built} for number, built in enumerate(placed, 1)]


def box(x, y, w, h) -> dict:
    return {"x": x, "y": y, "w": w, "h": h}


def links(own: str) -> list[dict]:
    return [
        {
            "type": "link",
            "title": title.removeprefix("Larder: "),
            "url": f"/d/{uid}",
            "icon": "dashboard",
            "tooltip": title,
            "tags": [],
            "asDropdown": False,
            "targetBlank": False,
            "includeVars": True,
            "keepTime": True,
        }
        for uid, title in DASHBOARDS
        if uid != own
    ]


def dashboard(uid: str, description: str, rows) -> dict:
    return {
        "uid": uid,
        "title": dict(DASHBOARDS)[uid],
        "description": " ".join(description.split()),
        "tags": ["larder"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": links(uid),
        "templating": {"list": variables()},
        "annotations": {"list": [firing()]},
        "panels": laid_out(rows),
    }


def firing() -> dict:
    """Alerts as marks on every panel."""
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": BAD,
        "expr": 'ALERTS{alertname=~"Larder.*",alertstate="firing"}',
    }
