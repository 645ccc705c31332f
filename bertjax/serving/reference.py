"""The page of all routes, made of the OpenAPI document: it loads nothing from elsewhere."""

import html
from collections.abc import Iterator, Mapping
from typing import Any

from bertjax.program.strict_json import to_json

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; }
section { border-top: 1px solid #8886; padding: 0.5rem 0; }
code, pre { font: 0.9rem/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; padding: 0.5rem 0.75rem; background: #8882; border-radius: 0.3rem; }
table { border-collapse: collapse; }
td { padding: 0.1rem 1rem 0.1rem 0; vertical-align: top; }
"""


def make_reference(document: Mapping[str, Any]) -> str:
    """Returns the page, in HTML.

    Args:
        document: of OpenAPI.
    """
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            text = "\n".join(_describe(document, path, method, route))
            by_tag.setdefault(route["tags"][0], []).append(text)
    parts = [f"<h2>{html.escape(tag)}</h2>{''.join(texts)}" for tag, texts in by_tag.items()]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>bertjax: routes</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style><h1>Routes</h1>"
        '<p>The same for programs: <a href="openapi.json">openapi.json</a></p>'
        f"{''.join(parts)}</html>"
    )


def _describe(
    document: Mapping[str, Any], path: str, method: str, route: Mapping[str, Any]
) -> Iterator[str]:
    told = html.escape
    yield f"<section><h3><code>{method.upper()} {told(path)}</code></h3>"
    yield f"<p>{told(route['summary'])}</p>"
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    fields = [
        f"<tr><td><code>{told(name)}</code></td><td>{told(kind)}</td><td>{told(meaning)}</td></tr>"
        for name, kind, meaning in _fields(document, body.get("schema", {}))
    ]
    if fields:
        yield f"<table>{''.join(fields)}</table>"
    for name, example in body.get("examples", {}).items():
        call = to_json(example["value"])
        title = "" if name == "example" else f"# {name}\n"
        yield (
            f"<pre>{told(title)}curl -s http://127.0.0.1:3000{told(path)}"
            f" -H 'content-type: application/json' \\\n  -d '{told(call)}'</pre>"
        )
    answered = route["responses"]["200"].get("content", {}).get("application/json", {})
    if answered.get("schema"):
        yield f"<p>Answer: {told(_name(document, answered['schema']))}</p>"
    yield "</section>"


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the name of each field of a call, its type, and what it is."""
    seen, fields = set(), []
    for member in schema.get("anyOf", [schema]):
        known = _look_up(document, member)
        for name, field in known.get("properties", {}).items():
            if name not in seen:
                seen.add(name)
                kind = _name(document, field)
                if name in known.get("required", ()):
                    kind += ", required"
                elif field.get("default") is not None:
                    kind += f", default {to_json(field['default'])}"
                fields.append((name, kind, field.get("description", "")))
    # What a call must have comes first.
    return sorted(fields, key=lambda one: not one[1].endswith(", required"))


def _look_up(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def _name(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Returns the name of a type."""
    schema = _look_up(document, schema)
    if "anyOf" in schema:
        kinds = [_name(document, one) for one in schema["anyOf"]]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    if "enum" in schema:
        return " or ".join(map(to_json, schema["enum"]))
    if schema.get("type") == "array":
        kind = _name(document, schema.get("items", {}))
        return f"list of ({kind})" if " or " in kind else f"list of {kind}"
    if "properties" in schema:
        return f"{{{', '.join(schema['properties'])}}}"
    return schema.get("type", "any")
