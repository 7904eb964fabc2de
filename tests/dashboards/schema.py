"""Whether a dashboard is what Grafana reads, by the classes of grafana-foundation-sdk: they are made of its schemas.

They read what they are given without a look at it, so their annotations are compared with the JSON, member by member.
"""

import enum
import re
import types
import typing

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog import runtime as registered
from grafana_foundation_sdk.models import dashboard as models

plugins.register_default_plugins()
RUNTIME = registered.Runtime()
# Python's words that members of JSON are called otherwise.
RESERVED = {"type", "id", "min", "max", "format", "from", "filter", "range", "list", "hash", "match", "property", "map"}
# Queries of annotations are those of their sources, which the schema leaves open.
OPEN = {"annotations.list.expr"}


def faults(dashboard: dict) -> list[str]:
    """What is not as Grafana has it."""
    found: list[str] = []
    compare(dashboard, models.Dashboard, "", found)
    numbers = [panel["id"] for panel in dashboard["panels"]]
    if len(set(numbers)) != len(numbers):
        found.append("panels: numbers that are used twice")
    for panel in dashboard["panels"]:
        if panel["type"] != "row" and not panel.get("description"):
            found.append(f"{panel['title']}: no description")
    return found


def compare(value, hint, path: str, found: list[str]):
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, str):
        hint = getattr(models, hint)
    if isinstance(hint, typing.ForwardRef):
        hint = getattr(models, hint.__forward_arg__)
    if path.endswith("panels[]") and isinstance(value, dict):
        hint = models.RowPanel if value.get("type") == "row" else models.Panel
    elif origin in (typing.Union, types.UnionType):
        return any_of(value, options, path, found)
    if hint in (object, typing.Any):
        return
    if origin is list:
        if not isinstance(value, list):
            return found.append(f"{path}: no list")
        for item in value:
            compare(item, options[0], f"{path}[]", found)
    elif origin is dict:
        for name, item in value.items() if isinstance(value, dict) else []:
            compare(item, options[1], f"{path}.{name}", found)
    elif origin is typing.Literal:
        if value not in options:
            found.append(f"{path}: {value!r} is none of {options}")
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value not in [member.value for member in hint]:
            found.append(f"{path}: {value!r} is no {hint.__name__}")
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            found.append(f"{path}: {value!r} is no number")
    elif hint in (int, str, bool, type(None)):
        if type(value) is not hint:
            found.append(f"{path}: {value!r} is no {hint.__name__}")
    else:
        members(value, hint, path, found)


def any_of(value, options, path: str, found: list[str]):
    """One of several will do; what is wrong with the first one is told."""
    tried = []
    for option in options:
        wrong: list[str] = []
        compare(value, option, path, wrong)
        if not wrong:
            return
        tried.append(wrong)
    found += tried[0]


def members(value, hint, path: str, found: list[str]):
    if not isinstance(value, dict):
        return found.append(f"{path}: {value!r} is no {getattr(hint, '__name__', hint)}")
    known = annotations(hint)
    for name, item in value.items():
        place = f"{path}.{name}".lstrip(".")
        special = of_plugin(value, name, hint)
        member = special or known.get(attribute(name))
        if member is None:
            if place.replace("[]", "") not in OPEN:
                found.append(f"{place}: unknown to Grafana")
        elif special and name == "targets":
            for query in item:
                compare(query, special, f"{place}[]", found)
        elif special and name == "fieldConfig":
            compare(item, models.FieldConfigSource, place, found)
            compare(item.get("defaults", {}).get("custom", {}), special, f"{place}.defaults.custom", found)
        else:
            compare(item, member, place, found)


def annotations(hint) -> dict:
    module = __import__(hint.__module__, fromlist=["_"])
    return {name: typing.get_type_hints(hint, vars(module)).get(name) for name in hint.__annotations__} | inherited(
        hint
    )


def inherited(hint) -> dict:
    return {name: known for base in hint.__mro__[1:-1] for name, known in getattr(base, "__annotations__", {}).items()}


def of_plugin(value: dict, name: str, hint):
    """The class of what depends on the kind of panel."""
    if hint is not models.Panel:
        return None
    kind = RUNTIME.panelcfg_variants.get(value["type"])
    if name == "targets":
        return RUNTIME.dataquery_variants[value["datasource"]["type"]].from_json_hook.__self__
    if name == "options" and kind:
        return kind.options_from_json_hook.__self__
    if name == "fieldConfig" and kind and kind.field_config_from_json_hook:
        return kind.field_config_from_json_hook.__self__
    return None


def attribute(name: str) -> str:
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return f"{plain}_val" if plain in RESERVED else plain
