"""Looks at the running compose stack as an operator: `settle` waits until Prometheus has rates to show, `targets` until
all it knows are scraped, `look` checks rules, Grafana's provisioning and that one command's trace is whole."""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

WAIT = 180
GATEWAY = "causeway-gateway"


def get(port: str, path: str):
    with urllib.request.urlopen(f"http://127.0.0.1:{os.environ[port]}{path}", timeout=10) as answer:
        return json.load(answer)


def until(what: str, check) -> None:
    """Repeats `check` until it returns something true, which it returns."""
    end, last = time.monotonic() + WAIT, None
    while time.monotonic() < end:
        try:
            if found := check():
                return found
        except (urllib.error.URLError, OSError, KeyError, IndexError, ValueError) as error:
            last = error
        time.sleep(2)
    sys.exit(f"compose-test: {what}: not within {WAIT} s ({last})")


def query(text: str) -> list:
    return get("PROMETHEUS_PORT", "/api/v1/query?" + urllib.parse.urlencode({"query": text}))["data"]["result"]


def settle() -> None:
    for dialect in ("voice", "assistant", "cad", "scripting"):
        asked = f'sum(increase(gw_messages_received_total{{dialect="{dialect}"}}[1m])) > 0'
        until(f"traffic of {dialect}", lambda asked=asked: query(asked))
    until("a worker's own figures", lambda: query('sum(increase(gw_service_requests_total{service="voice"}[1m])) > 0'))
    until("events delivered", lambda: query("sum(increase(gw_delivery_lag_seconds_count[1m])) > 0"))


def scraped() -> set[str]:
    """The jobs whose targets all answer; nothing while one does not."""
    targets = get("PROMETHEUS_PORT", "/api/v1/targets")["data"]["activeTargets"]
    down = [target["scrapeUrl"] for target in targets if target["health"] != "up"]
    if down:
        raise ValueError(f"not scraped: {down}")
    return {target["labels"]["job"] for target in targets}


def targets() -> None:
    until("targets", lambda: scraped() >= {"causeway", "nats", "prometheus"})


def look() -> None:
    targets()
    groups = get("PROMETHEUS_PORT", "/api/v1/rules")["data"]["groups"]
    broken = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"]
    assert groups and not broken, f"rules: {broken}"
    boards = until("dashboards", lambda: get("GRAFANA_PORT", "/api/search?type=dash-db"))
    uids = {board["uid"] for board in boards}
    assert uids >= {"causeway-overview", "causeway-dialects", "causeway-delivery", "causeway-nats"}, uids
    for worker in ("causeway-voice", "causeway-assistant"):
        until(f"a whole trace through {worker}", lambda worker=worker: whole_trace(worker))


def whole(trace: dict, worker: str) -> bool:
    """A command's way there: one root, the gateway's; the worker's span hangs on the gateway's; no span hangs on nothing."""
    spans = {span["spanID"]: span for span in trace["spans"]}
    service = {key: trace["processes"][span["processID"]]["serviceName"] for key, span in spans.items()}
    parent = {
        key: reference["spanID"]
        for key, span in spans.items()
        for reference in span.get("references") or []
        if reference.get("refType") == "CHILD_OF" and reference["traceID"] == trace["traceID"]
    }
    roots = [key for key in spans if key not in parent]
    handed_over = any(service[key] == worker and service.get(above) == GATEWAY for key, above in parent.items())
    return handed_over and [service[key] for key in roots] == [GATEWAY] and all(above in spans for above in parent.values())


def whole_trace(worker: str) -> bool:
    found = get("TRACES_PORT", f"/api/traces?service={GATEWAY}&limit=200&lookback=1h")["data"]
    for trace in found:
        if whole(trace, worker):
            names = {process["serviceName"] for process in trace["processes"].values()}
            print(f"compose-test: trace {trace['traceID']}: {len(trace['spans'])} spans of {', '.join(sorted(names))}")
            return True
    return False


{"settle": settle, "targets": targets, "look": look}[sys.argv[1]]()
