"""State topics over a real gateway: the last value of each, in the order of the stream, and taken back when it is gone."""

import json

from stack import Broker
from talk import bus, client
from viewer import Scripts, joined, model, page


async def put(publisher, space: str, topic: str, value, dialect: str = "voice") -> int:
    """States a value (or, with None, takes it back) and returns its sequence."""
    body = b"" if value is None else json.dumps(value).encode()
    stored = await publisher.connection.jetstream().publish(f"gw.v1.state.{space}.{dialect}.{topic}", body)
    return stored.seq


async def test_who_comes_back_gets_the_last_values_in_the_order_they_were_stated(broker, gateway, space):
    async with bus(broker) as publisher, client(gateway.events(space)) as witness:
        await put(publisher, space, "before", 0)
        offset = (await witness.frame())["offset"]
        for topic, value in [("b", 1), ("a", 1), ("c", 1), ("a", 2), ("b", None)]:
            await put(publisher, space, topic, value)
        # of values that follow each other at once the last is enough
        live = [await witness.frame()]
        while (live[-1]["type"], live[-1]["data"]) != ("b", None):
            live.append(await witness.frame())
        assert [(frame["type"], frame["data"]) for frame in live if frame["data"] != 1 or frame["type"] == "c"] == [
            ("c", 1),
            ("a", 2),
            ("b", None),
        ]
        async with client(gateway.events(space, f"?since={offset}")) as back:
            assert back.status["recovered"] is True
            # values in between are not given again; a value taken back is
            assert [(frame["type"], frame["data"]) for frame in back.replayed] == [("c", 1), ("a", 2), ("b", None)]
            seqs = [frame["seq"] for frame in back.replayed]
            assert seqs == sorted(seqs)
        async with client(gateway.events(space)) as late:
            assert sorted(frame["type"] for frame in late.replayed) == ["a", "before", "c"]


async def test_purged_states_are_taken_back_from_everybody_who_saw_them(broker, gateway, own_gateway, space):
    other = own_gateway()
    async with (
        bus(broker) as publisher,
        client(gateway.events(space)) as one,
        client(other.events(space)) as two,
    ):
        await put(publisher, space, "mode", {"dark": True})
        await put(publisher, space, "kept", 1)
        frames = await one.frames(2)
        offset = frames[-1]["offset"]
        await two.frames(2)
        # the newest stays, so that only its absence tells that the other is gone
        await publisher.connection.jetstream().purge_stream("GW_STATE", subject=f"gw.v1.state.{space}.voice.mode")
        for witness in (one, two):
            gone = await witness.frame()
            assert (gone["type"], gone["data"], gone.get("deleted")) == ("mode", None, True)
        for server in (gateway, other):
            async with client(server.events(space)) as late:
                assert [frame["type"] for frame in late.replayed] == ["kept"]
            async with client(server.events(space, f"?since={offset}")) as back:
                assert back.status["recovered"] is True
                assert [(frame["type"], frame["data"]) for frame in back.replayed] == [("mode", None)]
        # told once: what follows is what is stated next
        await put(publisher, space, "mode", 3)
        for witness in (one, two):
            assert (await witness.frame())["data"] == 3


async def test_a_page_clears_when_its_model_is_purged(broker, gateway, space):
    async with bus(broker) as publisher, page(gateway.cad, space) as viewer:
        script = Scripts(gateway.cad, space)
        await joined(script, viewer)
        await script.tell("D", model("shown"))
        assert (await viewer.json())["type"] == "data"
        await publisher.connection.jetstream().purge_stream("GW_STATE", subject=f"gw.v1.state.{space}.cad.>")
        assert await viewer.json() == {"type": "clear"}


async def test_states_of_a_stream_that_was_made_anew_are_taken_back(own_gateway, tmp_path, space):
    broker = Broker(tmp_path / "nats")
    try:
        gateway = own_gateway(on=broker)
        async with bus(broker) as publisher, client(gateway.events(space)) as one:
            await put(publisher, space, "mode", 1)
            assert (await one.frame())["data"] == 1
            await publisher.connection.jetstream().delete_stream("GW_STATE")
            # whoever was shown it is greeted anew, and then told
            gone = await one.frame()
            assert (gone["type"], gone["data"], gone.get("deleted")) == ("mode", None, True)
            async with client(gateway.events(space)) as late:
                assert late.replayed == []
        gateway.stop()
    finally:
        broker.stop()
