"""Faults with names: those that are worth trying, and how chaos draws from them.

docs/emulator.md lists them; a test holds the two together.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from vevents.emulator.faults import Fault
from vevents.errors import ConfigurationError

Severity = Literal["low", "medium", "high"]

_HTML: Final = {"Content-Type": "text/html"}
_JSON: Final = {"Content-Type": "application/json"}
_LOGIN_PAGE: Final = "<html><body><form>Room number and surname, please</form></body></html>"

# As they stand in docs/emulator.md; the name is put in below.
_NAMED: Final[Mapping[str, Mapping[str, Any]]] = {
    # The server is in trouble.
    "server-error": {"status": 500},
    "server-error-stored": {"status": 500, "stored": True},
    "bad-gateway": {"status": 502, "headers": _HTML, "body": "<h1>Bad Gateway</h1>"},
    "unavailable": {"status": 503, "headers": {"Retry-After": "1"}},
    "unavailable-until": {"status": 503, "headers": {"Retry-After": "{date+2}"}},
    "unavailable-for-years": {"status": 503, "headers": {"Retry-After": "99999999999"}},
    "gateway-timeout": {"status": 504, "headers": _HTML, "body": "<h1>Gateway Timeout</h1>"},
    "request-timeout": {"status": 408},
    # It asks to slow down.
    "throttled": {"status": 429, "headers": {"Retry-After": "1"}},
    "throttled-silent": {"status": 429},
    "throttled-until": {"status": 429, "headers": {"Retry-After": "{date+2}"}},
    "throttled-for-years": {"status": 429, "headers": {"Retry-After": "99999999999"}},
    "throttled-negative": {"status": 429, "headers": {"Retry-After": "-5"}},
    "throttled-in-the-past": {"status": 429, "headers": {"Retry-After": "{date-3600}"}},
    "throttled-garbage": {"status": 429, "headers": {"Retry-After": "soon"}},
    "overloaded": {"status": 529, "headers": {"Retry-After": "1"}},
    # It does not want us.
    "unauthorized": {"status": 401},
    "payment-required": {"status": 402},
    "forbidden": {"status": 403},
    "locked": {"status": 423},
    # It does not want this.
    "not-found": {"status": 404},
    "not-found-page": {"status": 404, "headers": _HTML, "body": "<h1>Not Found</h1>"},
    "conflict": {"status": 409},
    "too-large": {"status": 413},
    "too-large-page": {"status": 413, "headers": _HTML, "body": "<h1>Too Large</h1>"},
    "refused": {"events": {"outcome": "refused"}},
    "refused-unnamed": {"events": {"outcome": "refused-unnamed"}},
    # It says 201 and means something else.
    "events-partly": {"events": {"outcome": "partly", "which": {"share": 0.3}}},
    "events-unnamed": {"events": {"outcome": "unnamed", "which": {"share": 0.3}}},
    "events-lost": {"events": {"outcome": "lost", "which": {"share": 0.3}}},
    "image-lost": {"image": "lost"},
    "image-unnamed": {"image": "unnamed"},
    # The connection breaks.
    "dropped": {"drop": True},
    "answer-lost": {"drop": True, "stored": True},
    "request-reset": {"request": {"stop_at": 0.5, "then": "reset"}},
    "request-closed": {"request": {"stop_at": 0.5, "then": "close"}},
    "request-stalled": {"request": {"stop_at": 0.5, "then": "stall"}},
    "answer-reset": {"answer": {"stop_at": 0.5, "then": "reset"}},
    "answer-closed": {"answer": {"stop_at": 0.5, "then": "close"}},
    "answer-stalled": {"answer": {"stop_at": 0.5, "then": "stall"}},
    "no-answer": {"answer": {"stop_at": 0, "then": "stall"}},
    "no-answer-stored": {"answer": {"stop_at": 0, "then": "stall"}, "stored": True},
    # It is slow.
    "slow-request": {"request": {"bytes_per_s": 50_000}},
    "slow-answer": {"answer": {"bytes_per_s": 500}},
    "late": {"delay_s": 0.1},
    # The answer is strange.
    "empty-200": {"status": 200, "body": ""},
    "empty-201": {"status": 201, "headers": _JSON, "body": "", "stored": True},
    "no-content": {"status": 204, "stored": True},
    "half-json": {"content": {"keep": 0.5}},
    "answer-without-ids": {"status": 201, "body": {"success": True}, "stored": True},
    "length-too-long": {"headers": {"Content-Length": "100000"}},
    "length-too-short": {"headers": {"Content-Length": "7"}},
    "wrong-type": {"headers": {"Content-Type": "text/plain"}},
    "wrong-charset": {"headers": {"Content-Type": "application/json; charset=utf-7"}},
    "utf-16": {"content": {"charset": "utf-16"}},
    "gzipped": {"content": {"gzip": True}},
    "gzip-announced": {"headers": {"Content-Encoding": "gzip"}},
    "huge": {"content": {"size": 40_000_000}},
    "http-1.0": {"http_1_0": True},
    "early-hints": {"informational": [100, 102, 103]},
    "switching-protocols": {"informational": [101]},
    # It is not the API.
    "redirect": {"status": 307, "headers": {"Location": "http://127.0.0.1:9/login"}},
    "captive-portal": {"status": 200, "headers": _HTML, "body": _LOGIN_PAGE},
    "captive-portal-511": {"status": 511, "headers": _HTML, "body": _LOGIN_PAGE},
    "another-api": {"status": 200, "body": {"status": "ok"}},
    "proxy-login": {"status": 407, "headers": {"Proxy-Authenticate": "Basic"}},
    # Its clock is wrong.
    "date-ahead": {"headers": {"Date": "{date+63072000}"}},
    "date-behind": {"headers": {"Date": "{date-63072000}"}},
    "date-garbage": {"headers": {"Date": "yesterday"}},
}

CATALOGUE: Final[Mapping[str, Fault]] = {
    name: Fault.from_json({"name": name, **fields}) for name, fields in _NAMED.items()
}

_RATES: Final[Mapping[str, float]] = {"low": 0.05, "medium": 0.2, "high": 0.5}

# What an honest server and a bad network do to any request, in passing. Not among them: refusals,
# which are for good, and lies.
_PASSING: Final = (
    "server-error",
    "server-error-stored",
    "bad-gateway",
    "unavailable",
    "gateway-timeout",
    "request-timeout",
    "throttled",
    "throttled-silent",
    "throttled-negative",
    "throttled-in-the-past",
    "throttled-garbage",
    "overloaded",
    "unauthorized",
    "locked",
    "dropped",
    "answer-lost",
    "request-reset",
    "request-closed",
    "answer-reset",
    "answer-closed",
    "slow-request",
    "slow-answer",
    "late",
    "empty-200",
    "half-json",
    "length-too-long",
    "length-too-short",
    "wrong-type",
    "http-1.0",
    "gzipped",
    "gzip-announced",
    "early-hints",
    "redirect",
    "captive-portal",
    "captive-portal-511",
)
# These cost the client a timeout, or megabytes.
_COSTLY: Final = (
    "throttled-for-years",
    "request-stalled",
    "answer-stalled",
    "no-answer",
    "no-answer-stored",
    "huge",
)
_OF_EVENTS: Final = ("events-partly", "events-unnamed")
_OF_IMAGES: Final = ("image-unnamed",)


def parse_severity(text: str) -> Severity:
    """Return the severity of this name.

    Raises:
        ConfigurationError: There is none.
    """
    for severity in get_args(Severity):
        if text == severity:
            known: Severity = severity
            return known
    raise ConfigurationError(f"chaos: {text!r} is none of {', '.join(get_args(Severity))}")


def draw(dice: random.Random, severity: Severity, path: str) -> Fault | None:
    """Draw what one request meets.

    Args:
        dice: The same ones give the same fault.
        severity: How often there is one; above `low`, also the costly ones.
        path: Of the request; events and images have faults of their own.
    """
    if dice.random() >= _RATES[severity]:
        return None
    names = list(_PASSING)
    if severity != "low":
        names += _COSTLY
    if path.endswith("/upload"):
        names += _OF_IMAGES * 3
    elif path.endswith("/batch"):
        names += _OF_EVENTS * 3
    return CATALOGUE[dice.choice(names)]
