"""The voice worker where nothing is stored: no streams, so no leases either, and it speaks all the same."""

from stack import Broker, Workers
from talk import client


async def test_without_streams_the_voice_worker_speaks_as_if_alone(own_gateway, tmp_path):
    # no JetStream at all
    broker = Broker(tmp_path / "nats", "-m", "-1")
    gateway = own_gateway(on=broker, GW_EVENTS_HISTORY="false")
    workers = Workers(broker, tmp_path / "worker.log", "voice")
    try:
        async with client(gateway.events("alone")) as one:
            for _ in range(2):
                await one.send({"type": "demo_flow"})
                topics = []
                while not topics or topics[-1] != "latency_trace":
                    topics.append((await one.frame())["type"])
                assert topics[0] == "stt_start" and "llm_result" in topics, topics
    finally:
        workers.stop()
        gateway.stop()
        broker.stop()
