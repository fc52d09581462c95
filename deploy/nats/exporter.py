"""NATS's own figures for Prometheus: `python3 exporter.py http://nats:8222 [http://…]` serves /metrics on port 7777.

Named as the NATS project's exporter names them with `-prefix=nats -varz`, so that dashboards and alerts fit both; this
one needs nothing but the image that is there anyway. Each scrape asks each server then; nothing is kept in between.
"""

import http.server
import json
import os
import signal
import socket
import sys
import urllib.request

PORT = int(os.environ.get("EXPORTER_PORT", "7777"))
# below Prometheus's own patience, so that a silent server is named instead of the exporter
PATIENCE = 2
SHOWN = (
    "connections", "total_connections", "subscriptions", "routes", "remotes", "leafnodes",
    "in_msgs", "out_msgs", "in_bytes", "out_bytes", "slow_consumers",
    "mem", "cpu", "cores", "max_connections", "max_payload",
)  # fmt: skip


def ask(address: str) -> dict:
    with urllib.request.urlopen(f"{address.rstrip('/')}/varz", timeout=PATIENCE) as answer:
        return json.load(answer)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") + '"'


def page(servers: dict[str, dict]) -> str:
    """The exposition of what the servers said; a figure that a version does not have is left out."""
    lines = []
    for name in SHOWN:
        rows = [
            f"nats_varz_{name}{{server_id={quoted(address)}}} {said[name]}"
            for address, said in servers.items()
            if isinstance(said.get(name), (int, float))
        ]
        if rows:
            # a gauge each, as the other exporter has it, also where the figure only grows
            lines += [f"# HELP nats_varz_{name} {name} of /varz.", f"# TYPE nats_varz_{name} gauge", *rows]
    return "\n".join(lines) + "\n"


class Answer(http.server.BaseHTTPRequestHandler):
    """One request; a client that says nothing is let go."""

    timeout = 5

    def do_GET(self) -> None:  # the library's name
        if self.path != "/metrics":
            self.say(404, "look at /metrics\n")
            return
        servers, silent = {}, []
        for address in ADDRESSES:
            try:
                servers[address] = ask(address)
            except (OSError, ValueError) as error:
                silent.append(f"{address}: {error}\n")
        # none is there: the target is down, which is what Prometheus then shows
        self.say(*((200, page(servers)) if servers else (503, "".join(silent))))

    def say(self, code: int, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """A scrape every few seconds is not worth a line."""


class Server(http.server.HTTPServer):
    """Listens on both families where there are two."""

    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


if __name__ == "__main__":
    ADDRESSES = sys.argv[1:] or sys.exit(__doc__)
    # the first process of a container has no default answer to a request to end
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(("", PORT), Answer).serve_forever()
