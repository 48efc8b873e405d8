#!/usr/bin/env python3
"""Makes the fixtures of crates/api/tests from the published Docker Engine API specification.

usage: scripts/spec-to-schema.py path/to/docker-engine-v1.50.yaml

Writes crates/api/tests/spec-routes.txt (method and path of every call) and
crates/api/tests/schema/definitions.json (the definitions, without prose; under "responses"
the schema of each call's successful answer; under "statuses" the schema, or null, of every
status that the call may answer with). Needs PyYAML.
"""

import json
import pathlib
import sys

import yaml

PROSE = {"description", "example", "examples", "title", "externalDocs"}
TESTS = pathlib.Path(__file__).resolve().parent.parent / "crates/api/tests"


def trim(node, is_properties=False):
    """The schema without what only people read; property names are never prose."""
    if isinstance(node, dict):
        return {
            str(key): trim(value, key == "properties" and not is_properties)
            for key, value in node.items()
            if is_properties or (key not in PROSE and (not str(key).startswith("x-") or key == "x-nullable"))
        }
    if isinstance(node, list):
        return [trim(item) for item in node]
    return node


def main(path):
    with open(path, encoding="utf-8") as file:
        spec = yaml.safe_load(file)
    routes, responses, statuses = [], {}, {}
    for url, calls in spec["paths"].items():
        for method, call in calls.items():
            name = f"{method.upper()} {url}"
            routes.append(name)
            statuses[name] = {}
            for code, response in call.get("responses", {}).items():
                statuses[name][str(code)] = trim(response.get("schema"))
                if str(code).startswith("2") and "schema" in response and name not in responses:
                    responses[name] = trim(response["schema"])
    (TESTS / "schema").mkdir(parents=True, exist_ok=True)
    (TESTS / "spec-routes.txt").write_text("\n".join(routes) + "\n", encoding="utf-8")
    document = {"definitions": trim(spec["definitions"], True), "responses": responses, "statuses": statuses}
    text = json.dumps(document, indent=1, sort_keys=True, default=str)
    (TESTS / "schema/definitions.json").write_text(text + "\n", encoding="utf-8")
    print(f"{len(routes)} calls, {len(spec['definitions'])} definitions")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
