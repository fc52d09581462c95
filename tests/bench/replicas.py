"""`make replicas`: commands a second through the gateway with one, two and three instances of a worker.

Each instance does one thing at a time and takes 50 ms for it, asleep, so that it is its number that counts and not the
cores of this machine. Sixteen clients ask as fast as they are answered.
"""

import asyncio
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "python"))

import nats  # noqa: E402
from nats.micro import add_service  # noqa: E402
from stack import Broker, Gateway  # noqa: E402
from talk import client  # noqa: E402

WORK, CLIENTS, COMMANDS = 0.05, 16, 240


async def work(url: str) -> None:
    """An instance, until its process is ended."""
    connection = await nats.connect(url)
    service = await add_service(connection, name="press", version="1.0.0", queue_group="press")

    async def press(request):
        # blocks on purpose: one thing at a time
        time.sleep(WORK)
        await request.respond(b"{}")

    await service.add_endpoint(name="press", subject="gw.v1.cmd.*.press.press", handler=press)
    await asyncio.Event().wait()


async def listed(gateway: Gateway, count: int) -> None:
    """Returns when the gateway knows all instances."""
    while True:
        answer = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{gateway.port}/status.json", None, 5)
        if sum(one["name"] == "press" for one in json.load(answer)["services"]) == count:
            return
        await asyncio.sleep(0.1)


async def measure(gateway: Gateway) -> tuple[float, list[float]]:
    """Commands a second, and how long each took."""
    left, took = iter(range(COMMANDS)), []

    async def ask():
        async with client(gateway.events("main")) as one:
            for _ in left:
                begun = time.monotonic()
                answer = await one.ask("press")
                assert answer["type"] == "command_result", answer
                took.append(time.monotonic() - begun)

    begun = time.monotonic()
    await asyncio.gather(*(ask() for _ in range(CLIENTS)))
    return COMMANDS / (time.monotonic() - begun), sorted(took)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(pathlib.Path(folder) / "bus")
        gateway = Gateway(broker, pathlib.Path(folder) / "gateway", GW_VOICE_ROUTES="press=press")
        instances = []
        try:
            print(f"{CLIENTS} clients, {COMMANDS} commands, {WORK * 1000:.0f} ms each, one at a time an instance")
            print(f"{'instances':>9} {'commands/s':>11} {'p50':>8} {'p99':>8}")
            for count in (1, 2, 3):
                instances.append(subprocess.Popen([sys.executable, __file__, broker.url]))
                await listed(gateway, count)
                rate, took = await measure(gateway)
                p50, p99 = (took[int(len(took) * quantile)] * 1000 for quantile in (0.5, 0.99))
                print(f"{count:>9} {rate:>11.1f} {p50:>5.0f} ms {p99:>5.0f} ms", flush=True)
        finally:
            for process in instances:
                process.kill()
                process.wait()
            gateway.stop()
            broker.stop()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]) if len(sys.argv) > 1 else main())
