"""Everything that was recorded of the originals, both generations, played against a gateway: whole, and cut in pieces."""

import asyncio
import contextlib
import json
import pathlib

import pytest
import raw
from viewer import PNG_URL, Scripts, model

RECORDED = pathlib.Path(__file__).parents[1] / "vectors" / "cad" / "recorded"
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
PROBE = {"model": {"parts": [], "probe": True}}


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (RECORDED / f"{name}.jsonl").read_text().splitlines()]


def filled(row: dict, said: str) -> str:
    """A message of which only the beginning was kept: another one of its kind and length."""
    if "length" not in row:
        return said
    kind = said[:2]
    if kind == "U:":
        name = json.JSONDecoder().raw_decode(said, said.index('"filename":') + len('"filename":'))[0]
        text = json.dumps({"command": "screenshot", "text": {"filename": name, "data": PNG_URL}})
    elif kind == "B:":
        text = json.dumps({"model": {"parts": [], "padding": "A" * (row["length"] - 50)}})
    else:
        text = model("filled", padding=row["length"] - 150).decode()
    return kind + text


class Client:
    """One recorded connection."""

    def __init__(self, peer: raw.Peer, cut: bool):
        self.peer, self.cut, self.asked = peer, cut, ""

    async def say(self, text: str, binary: bool) -> None:
        self.asked = text
        opcode, payload = (BINARY if binary else TEXT), text.encode()
        if not self.cut or len(payload) < 3:
            return await self.peer.send(raw.frame(opcode, payload))
        # three fragments, each cut within its head and within its payload
        third = len(payload) // 3
        parts = [payload[:third], payload[third : 2 * third], payload[2 * third :]]
        for at, part in enumerate(parts):
            frame = raw.frame(opcode if at == 0 else 0, part, fin=at == 2)
            for piece in (frame[:1], frame[1:5], frame[5 : 5 + len(part) // 2], frame[5 + len(part) // 2 :]):
                await self.peer.send(piece)
                await asyncio.sleep(0)

    async def hear(self) -> tuple[int, bytes]:
        while True:
            opcode, payload = await self.peer.frame()
            if opcode != PING:
                return opcode, payload
            await self.peer.send(raw.frame(10, payload))

    async def hear_text(self) -> str:
        opcode, payload = await self.hear()
        assert opcode == TEXT, (opcode, payload[:200])
        return payload.decode()

    async def leave(self) -> None:
        await self.peer.send(raw.frame(CLOSE, b"\x03\xe8"))
        self.peer.writer.close()


class Replay:
    """A recording on its way."""

    def __init__(self, stack: contextlib.AsyncExitStack, gateway, space: str, cut: bool, recorded: list[dict]):
        self.stack, self.gateway, self.space, self.cut = stack, gateway, space, cut
        self.scripts = Scripts(gateway.cad, space)
        self.clients: dict[str, Client] = {}
        self.latest = {}
        said = [row for row in recorded if "said" in row]
        self.workers = any(row["conn"].startswith("backend") for row in said)
        self.answers = {row["said"][2:] for row in said if row["said"].startswith("R:")}
        self.pages = any(row["conn"].startswith("browser") for row in said)
        self.later = False
        self.compared = 0

    async def client(self, name: str) -> Client:
        if name not in self.clients:
            peer = await self.stack.enter_async_context(raw.upgraded(self.gateway.cad, f"/s/{self.space}"))
            self.clients[name] = Client(peer, self.cut)
        return self.clients[name]

    async def said(self, row: dict) -> None:
        client = await self.client(row["conn"])
        text = filled(row, row["said"])
        self.latest[text[:2]] = text[2:]
        await client.say(text, row.get("binary", False))
        if text == "L:Python listener":
            # shapes are acknowledged as soon as it works
            while not (await self.scripts.exact(PROBE))["ok"]:
                await asyncio.sleep(0.05)
        elif text == "L:{}":
            # it is a page when the gateway has answered what came behind
            await client.peer.send(raw.frame(PING, b"here"))
            assert (await client.peer.frame())[0] == 10 or self.later
        elif self.workers and text.startswith('U:{"command":"status"'):
            # reports are gathered for a moment: each is waited for, so that all are told
            await self.told("backend-1", json.loads(text[2:])["text"])

    async def heard(self, row: dict) -> None:
        name = row["conn"]
        wanted = self.latest[self.kind(row)] if "length" in row else row["heard"]
        if name.startswith("browser"):
            await self.heard_by_page(name, wanted)
        elif name.startswith("backend"):
            await self.heard_by_worker(name, wanted)
        else:
            await self.heard_by_script(name, json.loads(wanted))

    @staticmethod
    def kind(row: dict) -> str:
        return "B:" if row["conn"].startswith("backend") else "D:"

    async def heard_by_page(self, name: str, wanted: str) -> None:
        if '"backend_response"' in wanted and wanted not in self.answers:
            # measured in the original server itself
            return
        page = self.clients[name]
        text = await page.hear_text()
        while self.later and text != wanted:
            # a page that comes later is given more than the originals gave it
            text = await page.hear_text()
        assert text == wanted
        self.compared += 1

    async def heard_by_worker(self, name: str, wanted: str) -> None:
        if '"command"' in wanted[:12]:
            # reports: see told
            return
        while (text := await self.clients[name].hear_text()) == json.dumps(PROBE):
            pass
        assert text == wanted
        self.compared += 1

    async def told(self, name: str, report: dict) -> None:
        text = await self.clients[name].hear_text()
        while text == json.dumps(PROBE):
            text = await self.clients[name].hear_text()
        assert json.loads(text) == {"command": "status", "text": report}
        self.compared += 1

    async def heard_by_script(self, name: str, wanted: dict) -> None:
        script = self.clients[name]
        opcode, payload = await script.hear()
        assert opcode in (TEXT, BINARY), payload
        answer = json.loads(payload)
        if script.asked.startswith("B:"):
            assert answer == ({"ok": True} if self.workers else {"ok": False, "reason": "no_backend"})
        elif "_splash" in wanted:
            if not self.workers:
                # two more come from the command line of the original, where they mean nothing
                assert set(wanted) - {"backend", "timeit"} <= set(answer)
            if self.pages and not self.later:
                assert answer["_splash"] == wanted["_splash"]
        else:
            # reports are gathered for a moment
            while answer != wanted:
                await asyncio.sleep(0.05)
                answer = {"command": "status", "text": await self.scripts.status()}
        self.compared += 1

    async def play(self, recorded: list[dict]) -> None:
        for at, row in enumerate(recorded):
            try:
                if "said" in row:
                    self.later |= row["conn"] == "browser-2"
                    await self.said(row)
                elif "heard" in row:
                    await self.heard(row)
                elif "left" in row and (client := self.clients.get(row["conn"])):
                    await client.leave()
            except BaseException as error:
                error.add_note(f"line {at + 1}: {json.dumps(row)[:200]}")
                raise


RUNS = [name for name in sorted(path.stem for path in RECORDED.glob("*.jsonl")) if "errors" not in name]


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("name", RUNS)
async def test_a_recorded_run_goes_as_it_went(gateway, space, name, cut):
    recorded = rows(name)
    async with contextlib.AsyncExitStack() as stack:
        replay = Replay(stack, gateway, space, cut, recorded)
        await replay.play(recorded)
        assert replay.compared > 2


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("name", ["gen3-errors", "gen4-errors"])
async def test_what_broke_the_originals_ends_with_a_reason_and_the_rest_is_answered(gateway, space, name, cut):
    recorded = rows(name)
    broke = {row["conn"] for row in recorded if row.get("raised")}
    async with contextlib.AsyncExitStack() as stack:
        replay = Replay(stack, gateway, space, cut, recorded)
        ended = answered = 0
        for conn in dict.fromkeys(row["conn"] for row in recorded if "conn" in row):
            said = [row for row in recorded if row.get("conn") == conn and "said" in row]
            heard = [row for row in recorded if row.get("conn") == conn and "heard" in row]
            if not conn.startswith("raw") or any(row["said"] == "L:{}" for row in said):
                # several pages are told apart otherwise here
                continue
            # the earlier server broke on its own clipboard
            breaks = conn in broke and "selected" not in said[0]["said"]
            client = await replay.client(conn)
            for row in said:
                await client.say(filled(row, row["said"]), row.get("binary", False))
            if breaks:
                opcode, payload = await client.hear()
                assert opcode == CLOSE and int.from_bytes(payload[:2]) == 1007 and len(payload) > 2, (said, payload)
                ended += 1
            for _ in heard if not breaks else []:
                opcode, payload = await client.hear()
                assert opcode == BINARY and json.loads(payload), (said, payload)
                answered += 1
            await client.leave()
        assert ended >= 7
        assert answered >= 8
