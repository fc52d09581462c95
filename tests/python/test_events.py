"""Events: one order for all, an exact cut for newcomers, resume over a restart, spaces apart."""

import asyncio
import contextlib
import re

from talk import bus, client, numbers, settle


async def test_fifty_clients_see_the_same_order(broker, gateway, space):
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(gateway.events(space))) for _ in range(50)]
        publishers = [await stack.enter_async_context(bus(broker)) for _ in range(4)]

        async def publish(index, publisher):
            for number in range(100):
                await publisher.event(space, index * 1000 + number)
                await asyncio.sleep(0)

        await asyncio.gather(*(publish(index, publisher) for index, publisher in enumerate(publishers)))
        heard = await asyncio.gather(*(one.frames(400) for one in clients))

    first = numbers(heard[0])
    assert sorted(first) == [index * 1000 + number for index in range(4) for number in range(100)]
    for frames in heard:
        assert numbers(frames) == first
        seqs = [frame["seq"] for frame in frames]
        assert seqs == sorted(set(seqs))


async def test_an_event_has_the_documented_shape(broker, gateway, space):
    async with client(gateway.events(space)) as one, bus(broker) as publisher:
        await publisher.event(space, 1, "stt_result", text="what time is it")
        frame = await one.frame()
    assert frame["type"] == "stt_result"
    assert frame["data"] == {"n": 1, "text": "what time is it"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", frame["timestamp"])
    assert isinstance(frame["seq"], int)
    assert one.status["space"] == space
    assert one.status["session"]


async def test_late_joiners_miss_nothing_and_see_nothing_twice(broker, gateway, space):
    last = 2000
    done = asyncio.Event()

    async def publish():
        async with bus(broker) as publisher:
            begun = asyncio.get_running_loop().time()
            for number in range(last + 1):
                await publisher.event(space, number, padding="x" * 150)
                # 500 a second; behind time it does not wait at all
                await asyncio.sleep(max(0, begun + number / 500 - asyncio.get_running_loop().time()))
            await settle(publisher.connection)
        done.set()

    async def join(after):
        await asyncio.sleep(after)
        async with client(gateway.events(space)) as one:
            seen = list(one.replayed)
            replayed = len(seen)
            while not seen or seen[-1]["data"]["n"] < last:
                seen.append(await one.frame())
        return replayed, numbers(seen)

    publishing = asyncio.create_task(publish())
    joined = await asyncio.gather(*(join(0.4 * index + 0.05 * (index % 3)) for index in range(8)))
    await publishing
    assert done.is_set()
    for replayed, seen in joined:
        assert seen == list(range(seen[0], last + 1))
        assert replayed <= 100
    assert any(replayed == 100 for replayed, _ in joined)


async def test_a_newcomer_gets_the_last_hundred(broker, gateway, space):
    async with bus(broker) as publisher, client(gateway.events(space)) as witness:
        for number in range(130):
            await publisher.event(space, number)
        await witness.frames(130)
        async with client(gateway.events(space)) as late:
            assert numbers(late.replayed) == list(range(30, 130))
            assert late.status.get("recovered") is not True


async def test_a_restart_ends_streams_cleanly_and_they_resume(broker, own_gateway, space):
    gateway = own_gateway()
    async with bus(broker) as publisher:
        async with client(gateway.events(space)) as one, client(gateway.events(space)) as other:
            for number in range(5):
                await publisher.event(space, number)
            heard = await one.frames(5)
            await other.frames(5)
            gateway.terminate()
            codes = await asyncio.gather(one.ends(), other.ends())
            assert codes == [1001, 1001]
        assert await asyncio.to_thread(gateway.stop) == 0
        # closing its own connections is no loss, and not told as one
        farewell = gateway.log.read_text().split("draining")[-1]
        assert "stopped" in farewell and "connection to NATS is lost" not in farewell, farewell
        # said while nobody listens
        for number in range(5, 25):
            await publisher.event(space, number)
        await settle(publisher.connection)
        await asyncio.to_thread(gateway.start)
        async with client(gateway.events(space, f"?since={heard[2]['offset']}")) as again:
            assert again.status["recovered"] is True
            await publisher.event(space, 25)
            seen = list(again.replayed)
            while not seen or seen[-1]["data"]["n"] < 25:
                seen.append(await again.frame())
            assert numbers(seen) == list(range(3, 26))


async def test_the_greetings_offset_resumes_where_it_stood(broker, gateway, space):
    async with bus(broker) as publisher:
        async with client(gateway.events(space)) as one:
            await publisher.event(space, 0)
            await one.frame()
        async with client(gateway.events(space)) as one:
            assert numbers(one.replayed) == [0]
            offset = one.status["offset"]
        await publisher.event(space, 1)
        await settle(publisher.connection)
        async with client(gateway.events(space), additional_headers={"Gw-Since": offset}) as again:
            assert again.status["recovered"] is True
            seen = again.replayed or [await again.frame()]
            assert numbers(seen) == [1]


async def test_an_offset_of_another_history_is_not_recovered(broker, gateway, space):
    async with bus(broker) as publisher, client(gateway.events(space)) as witness:
        await publisher.event(space, 7)
        await witness.frame()
        async with client(gateway.events(space, "?since=1.5.1.5")) as one:
            assert one.status["recovered"] is False
            assert numbers(one.replayed) == [7]


async def test_a_client_of_two_dialects_hears_both_in_the_voice_form(broker, gateway, space):
    """Each dialect's events come in their order; which of two dialects comes first is not defined."""
    both = "?topics=voice,assistant"

    async def hears(one):
        seen = one.replayed
        while len(seen) < 3:
            frame = await one.frame()
            # what was said while the client came in is the past of its second dialect
            seen += frame["events"] if frame["type"] == "replay" else [frame]
        assert len({frame["seq"] for frame in seen}) == 3
        assert numbers([frame for frame in seen if frame["type"] == "tick"]) == [1, 3]
        assert numbers([frame for frame in seen if frame["type"] == "notification"]) == [2]

    async with bus(broker) as publisher, client(gateway.events(space)) as voice:
        async with client(gateway.events(space, both)) as one:
            await publisher.event(space, 1)
            stream = publisher.connection.jetstream()
            await stream.publish(f"gw.v1.evt.{space}.assistant.notification", b'{"n": 2}')
            await publisher.event(space, 3)
            await hears(one)
        async with client(gateway.events(space, f"{both}&since={one.status['offset']}")) as again:
            assert again.status["recovered"] is True
            await hears(again)
        assert numbers(await voice.frames(2)) == [1, 3]


async def test_spaces_do_not_hear_each_other(broker, gateway, space):
    here, there = f"{space}-a", f"{space}-b"
    async with bus(broker) as publisher, client(gateway.events(here)) as one, client(gateway.events(there)) as two:
        await publisher.event(here, 1)
        await publisher.event(there, 2)
        await publisher.event(here, 3)
        await publisher.event(there, 4)
        assert numbers(await one.frames(2)) == [1, 3]
        assert numbers(await two.frames(2)) == [2, 4]
        async with client(gateway.events(here)) as late:
            assert numbers(late.replayed) == [1, 3]


async def test_the_legacy_port_is_the_main_space(broker, gateway):
    async with client(f"ws://127.0.0.1:{gateway.voice}/") as one, bus(broker) as publisher:
        assert one.status["space"] == "main"
        await publisher.event("main", 1, "llm_start")
        assert (await one.frame())["type"] == "llm_start"


async def test_two_gateways_serve_one_space(broker, gateway, own_gateway, space):
    second = own_gateway()
    async with client(gateway.events(space)) as one, client(second.events(space)) as two, bus(broker) as publisher:
        for number in range(20):
            await publisher.event(space, number)
        here, there = await one.frames(20), await two.frames(20)
        assert [frame["offset"] for frame in here] == [frame["offset"] for frame in there]
        assert here == there
