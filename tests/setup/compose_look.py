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
    until("a whole trace", whole_trace)


def whole_trace() -> bool:
    """A command's trace: the gateway's span is the root, and every span hangs on one that is there."""
    found = get("TRACES_PORT", "/api/traces?service=causeway-gateway&limit=50&lookback=1h")["data"]
    for trace in found:
        spans = {span["spanID"]: span for span in trace["spans"]}
        parents = [reference["spanID"] for span in spans.values() for reference in span.get("references") or []
                   if reference.get("refType") == "CHILD_OF" and reference["traceID"] == trace["traceID"]]
        services = {process["serviceName"] for process in trace["processes"].values()}
        if len(spans) > 1 and all(parent in spans for parent in parents) and parents:
            print(f"trace {trace['traceID']}: {len(spans)} spans of {', '.join(sorted(services))}")
            return True
    return False


{"settle": settle, "targets": targets, "look": look}[sys.argv[1]]()
