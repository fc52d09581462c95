"""What the log says: one line for the end of a session, traces in a worker's lines, what SIGHUP takes over."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import urllib.request

from stack import BIN, Workers, free_port
from talk import client, eventually
from test_attach import is_listed


def lines(log, text: str) -> list[dict]:
    """The lines of a log whose message has this text."""
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if text in line.get("message", "")]


async def test_a_session_ends_in_one_line_with_what_it_did(own_gateway, space):
    gateway = own_gateway()
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    async with client(gateway.events(space), additional_headers=headers) as one:
        session = one.status["session"]
        await one.ask("stt_start")
        await one.ask("nobody_knows_this")
        await one.send("no JSON")
        await one.frame()
    await eventually(lambda: lines(gateway.log, "session ended"))
    [line] = lines(gateway.log, "session ended")
    assert line["message"] == "session ended: client left"
    said = {key: line[key] for key in ("level", "dialect", "session", "space", "code", "trace_id", "received", "commands")}
    assert said == {
        "level": "INFO", "dialect": "voice", "session": session, "space": space, "code": 1000, "trace_id": trace,
        "received": 3, "commands": 1,
    }
    # the greeting and three answers; control frames and news count too
    assert line["sent"] >= 4 and line["seconds"] > 0 and line["peer"].startswith("127.0.0.1:")


async def test_a_workers_lines_name_command_session_and_trace(own_gateway, broker, space, tmp_path):
    gateway = own_gateway()
    workers = Workers(broker, tmp_path / "log", "language", GW_LOG_LEVEL="info,causeway=debug")
    try:
        await is_listed(gateway, "language")
        trace = secrets.token_hex(16)
        gateway = own_gateway(GW_VOICE_ROUTES="analyse_text=language")
        await is_listed(gateway, "language")
        async with client(gateway.events(space)) as one:
            traceparent = f"00-{trace}-{secrets.token_hex(8)}-01"
            await one.send({"type": "analyse_text", "data": {}, "traceparent": traceparent})
            assert (await one.frame())["type"] == "error"
            session = f"voice/{one.status['session']}"
        await eventually(lambda: lines(workers.log, "the command failed"))
        [line] = lines(workers.log, "the command failed")
        assert line["code"] == "invalid"
        assert (line["span"]["name"], line["span"]["session"]) == ("command", session)
        assert line["span"]["trace_id"] == trace and line["span"]["id"]
    finally:
        workers.stop()


async def test_sighup_takes_over_the_filter_and_names_what_needs_a_restart(own_gateway, tmp_path):
    file = tmp_path / "causeway.toml"
    file.write_text('[log]\nlevel = "info"\n[links]\ngrafana = "http://localhost:3000"\n')
    gateway = own_gateway(GW_CONFIG=str(file), GW_LOG_LEVEL="")
    answer = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{gateway.port}/status.json", None, 5)
    assert json.load(answer)["links"] == {"grafana": "http://localhost:3000", "prometheus": None, "traces": None}

    file.write_text('[log]\nlevel = "causeway=debug,info"\n[voice]\nmax_message = "64KiB"\n[trace]\nratio = 0.5\n')
    gateway.process.send_signal(signal.SIGHUP)
    await eventually(lambda: lines(gateway.log, "SIGHUP"))
    [line] = lines(gateway.log, "SIGHUP")
    assert (line["level"], line["keys"]) == ("WARN", "links.grafana, trace.ratio, voice.max_message")
    assert "need a restart" in line["message"]

    # a file that cannot be used changes nothing, and says where it is wrong
    file.write_text('[log]\nlevel = "warn"\n[voice]\nmax_message = "lots"\n')
    gateway.process.send_signal(signal.SIGHUP)
    await eventually(lambda: len(lines(gateway.log, "SIGHUP")) == 2)
    line = lines(gateway.log, "SIGHUP")[1]
    assert line["message"] == "SIGHUP: nothing changed" and "voice.max_message" in line["problems"]

    # the filter is the running one still: what it lets through is heard
    file.write_text('[log]\nlevel = "info"\n[links]\ngrafana = "http://localhost:3000"\n')
    gateway.process.send_signal(signal.SIGHUP)
    await eventually(lambda: len(lines(gateway.log, "SIGHUP")) == 3)
    line = lines(gateway.log, "SIGHUP")[2]
    assert (line["level"], "keys" in line) == ("INFO", False)


async def test_a_collector_that_could_never_be_reached_is_refused(own_gateway, broker):
    import os
    import subprocess

    from stack import BIN

    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318"}
    told = await asyncio.to_thread(subprocess.run, [BIN, "check"], capture_output=True, text=True, env=env, timeout=30)
    assert told.returncode == 1
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in told.stderr and "without TLS" in told.stderr


async def test_a_login_inside_the_url_of_nats_is_shown_to_nobody(own_gateway, broker, tmp_path):
    gateway = own_gateway(GW_NATS_URL=broker.url.replace("://", "://someone:hunter2@"))
    await eventually(lambda: lines(gateway.log, "ready"))
    ready = next(line for line in lines(gateway.log, "ready") if line["message"] == "ready")
    assert ready["nats"] == broker.url.replace("://", "://…@")
    answer = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{gateway.port}/status.json", None, 5)
    assert json.load(answer)["nats_url"] == ready["nats"]
    assert "hunter2" not in gateway.log.read_text()
    # a worker says where it waits for NATS
    url = f"nats://someone:hunter2@127.0.0.1:{free_port()}"
    env = {key: value for key, value in os.environ.items() if not key.startswith("GW_")} | {"GW_NATS_URL": url}
    with (log := tmp_path / "worker").open("w") as out:
        worker = subprocess.Popen([BIN, "worker", "language"], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        await eventually(lambda: lines(log, "waiting for NATS"))
    finally:
        worker.terminate()
        await asyncio.to_thread(worker.wait, 30)
    assert "hunter2" not in log.read_text()
