"""The page /docs, made from the OpenAPI schema. (FastAPI's own page loads its scripts from another host.)"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: the API</title><style>
body {{ font: 1rem/1.55 system-ui, sans-serif; color: #1b1f24; background: #fbfaf8; max-width: 54rem; margin: 2.5rem auto;
  padding: 0 1.25rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2.5rem; }} a {{ color: #0b4f8a; }}
code, pre {{ font-family: ui-monospace, monospace; font-size: .9em; }}
pre {{ background: #f0eee9; padding: .8rem 1rem; border-radius: .4rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; width: 100%; }} th, td {{ text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid #dedad2; }} .scroll {{ overflow-x: auto; }}
</style></head><body><h1>{title}</h1><p>{about}</p>
<p><a href="/">The page</a> · <a href="/openapi.json">The same as OpenAPI</a></p>{routes}</body></html>"""


def docs_page(schema: Mapping) -> str:
    """The page, as HTML, from an OpenAPI schema."""
    routes = "".join(
        _route(schema, method, path, about)
        for path, methods in schema["paths"].items()
        for method, about in methods.items()
    )
    info = schema["info"]
    return _PAGE.format(title=escape(info["title"]), about=escape(info.get("description", "")), routes=routes)


def _route(schema: Mapping, method: str, path: str, about: Mapping) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(about.get('summary', ''))}</p>"]
    if "description" in about:
        parts.append(f"<p>{escape(about['description'])}</p>")
    if "requestBody" in about:
        body = _resolved(schema, about["requestBody"]["content"]["application/json"]["schema"])
        parts.append(_fields(schema, body))
        example = json.dumps({"prompt": "Yesterday we", "steering": None, "seed": 0})
        parts.append(f"<pre>curl -H 'content-type: application/json' -d '{escape(example)}' …{escape(path)}</pre>")
    answers = [f"{code} {answer['description']}" for code, answer in about["responses"].items()]
    parts.append(f"<p>Answers: {escape('; '.join(answers))}.</p>")
    return "".join(parts)


def _fields(schema: Mapping, body: Mapping) -> str:
    rows = [
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(schema, field))}</td>"
        f"<td>{escape(json.dumps(field['default'])) if 'default' in field else 'required' if name in body.get('required', ()) else ''}</td>"
        f"<td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in body["properties"].items()
    ]
    head = "<tr><th>field</th><th>kind</th><th>default</th><th>meaning</th></tr>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _kind(schema: Mapping, field: Mapping) -> str:
    """A field's type and bounds in words."""
    if "anyOf" in field:
        return " or ".join(_kind(schema, one) for one in field["anyOf"])
    field = _resolved(schema, field)
    if field.get("type") == "array":
        return f"list of {field.get('minItems', 0)} to {field.get('maxItems', 'any number of')} of {_kind(schema, field['items'])}"
    if field.get("type") == "object":
        return "{" + ", ".join(field["properties"]) + "}"
    low, high = (field.get(key) for key in ("minimum", "maximum"))
    return field.get("type", "any") + (
        f" {_short(low)} to {_short(high)}" if low is not None and high is not None else ""
    )


def _short(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _resolved(schema: Mapping, part: Mapping) -> Mapping:
    return schema["components"]["schemas"][part["$ref"].split("/")[-1]] if "$ref" in part else part
