"""What OpenAPI cannot say of valid requests, so that those which are meant to be valid are, and how NDJSON is written.

Requests that are meant to be wrong are left as they are.
"""

import json
import uuid

import schemathesis
from schemathesis import GenerationMode

KEY = "Idempotency-Key"

# Nobody applies anything while the tests run: to wait longer for it only takes time.
WAIT_MS_MAX = 5


@schemathesis.serializer("application/x-ndjson", "application/ndjson")
def ndjson(ctx, value):
    if isinstance(value, (bytes, str)):
        return value
    lines = value if isinstance(value, list) else [value]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@schemathesis.hook
def before_call(context, case, kwargs):
    wait_briefly(case.query)
    if not is_positive(case):
        return
    # Opaque: a valid one comes from the answer before, which no schema knows.
    if case.path.startswith("/v1/reports/"):
        case.query.pop("cursor", None)
    if case.path == "/v1/transactions" and case.method.upper() == "POST":
        complete(case)


def is_positive(case):
    return case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE


def wait_briefly(query):
    if not query or "at_least" not in query:
        return
    wait = str(query.get("wait_ms", WAIT_MS_MAX))
    if wait.isascii() and wait.isdigit() and int(wait) <= 10_000:
        query["wait_ms"] = min(int(wait), WAIT_MS_MAX)


def complete(case):
    """A key is for one object only, and one object has an id or a key."""
    if isinstance(case.body, list):
        case.headers.pop(KEY, None)
    elif isinstance(case.body, dict) and "id" not in case.body:
        case.headers.setdefault(KEY, str(uuid.uuid4()))
    for item in case.body if isinstance(case.body, list) else [case.body]:
        if isinstance(item, dict):
            mend(item)


def mend(item):
    """The accounts differ, and an amount is written without a fraction: to a JSON schema 1.0 is an integer."""
    if item.get("debit_account") == item.get("credit_account"):
        item["credit_account"] = "0" if item.get("debit_account") != "0" else "1"
    if isinstance(item.get("amount"), float):
        item["amount"] = int(item["amount"])
