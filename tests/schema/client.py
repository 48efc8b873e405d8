"""A plain HTTP client of the daemon that checks every answer it gets against the schema, and counts."""

import http.client
import json
import os
import socket
import urllib.parse

from schema import Schema

PREFIX = "/v1.50"


class Connection(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("docker", timeout=60)
        self.path = os.environ["DOCKER_HOST"].removeprefix("unix://")

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Client:
    def __init__(self):
        self.schema = Schema()
        self.called = {}
        self.passed = self.failed = 0

    def verdict(self, text, faults):
        if faults:
            self.failed += 1
            print(f"not ok schema: {text}")
            for fault in faults[:12]:
                print(f"    {fault}"[:400])
        else:
            self.passed += 1
            print(f"ok schema: {text}")

    def call(self, call, want, *path, query=None, body=None, raw=None, headers=None, note=""):
        """Makes the call (`GET /containers/{id}/json`; `path` fills its braces) and returns the body."""
        method, url = call.split(" ", 1)
        for part in path:
            start, end = url.index("{"), url.index("}")
            url = url[:start] + urllib.parse.quote(part, safe="/:@") + url[end + 1 :]
        status, got, text = self.request(method, url, query, body, raw, headers)
        faults = [] if status == want else [f"status {status}, wanted {want}: {text[:200]!r}"]
        self.called.setdefault(call, set()).add(status)
        value = None
        schema = self.schema.statuses[call].get(str(status))
        if status < 400 and schema and schema.get("type") == "string":
            # Plain text, or a stream.
            value = text.decode("utf-8", "replace")
        elif schema is not None or status >= 400:
            value, more = parse(text, got)
            faults += more or self.schema.faults(call, status, value)
        elif text and status in (204, 304):
            faults.append(f"a body without reason: {text[:80]!r}")
        else:
            faults += self.schema.faults(call, status, None)
            value = text
        if status >= 400:
            faults += self.schema.check("ErrorResponse", value)
            if isinstance(value, dict) and not value.get("message"):
                faults.append("an error without a message")
        self.verdict(f"{call} {want}{': ' if note else ''}{note}", faults)
        return value

    def lines(self, call, definition, *path, note="", **options):
        """A call that answers with a stream of JSON documents, each of one definition."""
        method, url = call.split(" ", 1)
        for part in path:
            start, end = url.index("{"), url.index("}")
            url = url[:start] + urllib.parse.quote(part, safe="/:@") + url[end + 1 :]
        status, got, text = self.request(method, url, options.get("query"), options.get("body"), options.get("raw"), options.get("headers"))
        self.called.setdefault(call, set()).add(status)
        faults, values = [], []
        if status != 200 or not got.get("Content-Type", "").startswith("application/json"):
            faults.append(f"status {status}, {got.get('Content-Type')}: {text[:200]!r}")
        else:
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
            faults += [fault for value in values for fault in self.schema.check(definition, value)]
            if not values:
                faults.append("nothing in the stream")
        self.verdict(f"{call} stream{': ' if note else ''}{note}", faults)
        return values

    def request(self, method, url, query, body, raw, headers):
        connection = Connection()
        headers = dict(headers or {})
        if body is not None:
            raw = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        if query:
            pairs = {k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in query.items()}
            url += "?" + urllib.parse.urlencode(pairs)
        try:
            connection.request(method, PREFIX + url, body=raw, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


def parse(text, headers):
    """The JSON value of a body, and what is wrong with it as such."""
    faults = []
    if not headers.get("Content-Type", "").startswith("application/json"):
        faults.append(f"Content-Type is {headers.get('Content-Type')}")
    try:
        return json.loads(text), faults
    except ValueError:
        return None, [*faults, f"no JSON: {text[:80]!r}"]
