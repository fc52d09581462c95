"""The NATS side: holds the lease, takes commands in, shows that they live, passes the final replies out.

Runs on a thread of its own with its own event loop. Jobs go to a lane; whoever owns the main thread empties it.
"""

import asyncio
import json
import logging
import threading
import time

import nats

from . import bodies
from .job import PIECE, Job
from .lane import Lane
from .lease import Lease
from .service import Service
from .traces import Traces
from .wire import Failure, Reply, expired, now

log = logging.getLogger(__name__)

# how often what a program prints is passed on while it runs
SHOW = 0.2
# bytes of commands and answers in hand at once
PATIENCE = 2


class Worker:
    """Serves one space of one stateful service."""

    def __init__(self, options, lane: Lane, description: str, gate=None):
        self.options, self.lane, self.description, self.gate = options, lane, description, gate
        self.state = "not connected"
        self.traces = Traces(options.service, options.nats)
        self._jobs: dict[str, tuple[Job, object, float]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="nats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends it from any thread: gives the lease up, tells those who wait, and leaves the bus."""
        loop, end = self._loop, self._end
        if loop and end and not loop.is_closed():
            loop.call_soon_threadsafe(end.set)
        self._thread.join(10)

    def alive(self) -> bool:
        return self._thread.is_alive()

    # --- its thread ---

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception as error:
            self.state = f"failed: {error}"
            log.exception("the worker ends")

    async def _run(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self.connection = await self._until_end(self._connect())
        if self.connection is None:
            return
        tasks = [asyncio.create_task(self._show_life()), asyncio.create_task(self._show_output())]
        if self.gate:
            tasks.append(asyncio.create_task(self.gate.watch(self.connection)))
        try:
            while not self._end.is_set():
                await self._until_end(self._hold())
        finally:
            for task in tasks:
                task.cancel()
            await self._bounded(self.connection.flush())
            await self._bounded(self.connection.close())
            # a collector that does not answer holds up nobody else
            await self._bounded(asyncio.to_thread(self.traces.stop))
            self.state = "not connected"

    async def _connect(self):
        """Waits for a broker that is not there yet."""
        told = False
        while True:
            try:
                return await nats.connect(
                    self.options.nats,
                    user=self.options.user or None,
                    password=self.options.password or None,
                    name=f"{self.options.service} worker",
                    max_reconnect_attempts=-1,
                    connect_timeout=2,
                    reconnect_time_wait=0.5,
                    ping_interval=2,
                    error_cb=_log_error,
                    # a first connection that fails is tried again here, where the end can interrupt
                    allow_reconnect=True,
                )
            except Exception as error:
                self.state = f"no NATS at {self.options.nats}"
                if not told:
                    log.warning("no NATS at %s yet (%s); trying again", self.options.nats, error)
                    told = True
                await asyncio.sleep(1)

    async def _hold(self) -> None:
        """One holding of the lease, from standing by to its end."""
        lease = Lease(self.connection, self.options.space, self.options.service)
        self.state = "standing by"
        try:
            await lease.open()
        except Exception as error:
            log.warning("leases need JetStream: %r; trying again", error)
            return await asyncio.sleep(1)
        await lease.take()
        serving = None
        try:
            serving = await self._serve()
            self.state = f"serving space {self.options.space}"
            log.info("%s serves space %s on %s", self.options.service, self.options.space, self.options.nats)
            await lease.keep()
        finally:
            # cancelled when the worker ends: what follows is short and bounded
            await self._bounded(self._unserve(serving, lease))

    async def _serve(self):
        root = f"gw.v1.cmd.{self.options.space}.{self.options.service}"
        subjects = {action: f"{root}.{action}" for action in [*self.lane.actions, "cancel"]}
        self.service = Service(self.options.service, self.description, {"space": self.options.space}, subjects)
        # One subscription for all actions: several would not keep the order in which commands came.
        commands = await self.connection.subscribe(f"{root}.*", queue=self.options.service)
        taking = asyncio.create_task(self._take_in(commands))
        # every instance hears a cancel
        cancels = await self.connection.subscribe(f"{root}.cancel", cb=self._on_cancel)
        await self.service.open(self.connection)
        await self.connection.flush()
        return commands, cancels, taking

    async def _unserve(self, serving, lease: Lease) -> None:
        if serving:
            commands, cancels, taking = serving
            taking.cancel()
            await commands.unsubscribe()
            await cancels.unsubscribe()
            await self.service.close()
            for job in self.lane.clear():
                await self._finish(job, Reply.failed(Failure("no_worker", "the worker left before the job's turn")))
            if running := self.lane.busy():
                self.lane.stop(running)
                for _ in range(10):
                    if running.id not in self._jobs:
                        break
                    await asyncio.sleep(0.1)
        await lease.release()

    async def _take_in(self, commands) -> None:
        """One command after the other, in the order they came, also when one must be fetched."""
        async for message in commands.messages:
            try:
                await self._command(message)
            except Exception:
                log.exception("a command was dropped")

    async def _command(self, message) -> None:
        action = message.subject.rsplit(".", 1)[1]
        headers = message.headers or {}
        if not message.reply or expired(headers):
            return
        job = Job(action, headers.get("Nats-Msg-Id") or message.reply, b"", None, headers.get("Gw-Correlation", ""))
        job.work = self.traces.begin(action, headers, len(message.data))
        loop = self._loop
        job.answer = lambda reply: loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._finish(job, reply)))
        self._jobs[job.id] = (job, message, time.monotonic())
        try:
            if action == "cancel":
                stopped = self._stop(json.loads(message.data or b"{}"))
                return await self._finish(job, Reply.done(result={"cancelled": stopped}))
            if action not in self.lane.actions:
                raise Failure("unknown_action", f"this worker does not know {action}")
            job.body = await bodies.incoming(self.connection, headers, message.data)
            if job.stopped:
                raise Failure("cancelled", "the job was cancelled")
            if not self.lane.add(job):
                raise Failure("busy", "too many jobs wait for this worker; try again later")
        except Failure as failure:
            await self._finish(job, Reply.failed(failure))
        except ValueError:
            await self._finish(job, Reply.failed(Failure("invalid", "the body is not JSON")))

    async def _finish(self, job: Job, reply: Reply) -> None:
        """The one final answer of a job."""
        job_there = self._jobs.get(job.id)
        if job_there is None or job_there[0] is not job:
            return
        _, message, started = job_there
        try:
            payload, large = await bodies.outgoing(self.connection, reply.body)
        except Failure as failure:
            reply = Reply.failed(failure)
            payload, large = reply.body, {}
        # from here on no sign of life may follow
        self._jobs.pop(job.id, None)
        await self.connection.publish(message.reply, payload, headers={**reply.headers(), **large, **job.work.carry()})
        job.work.end(reply.failure)
        if endpoint := self.service.endpoints.get(job.action):
            failure = reply.failure
            endpoint.count(started, f"{failure.code}: {failure.text}" if failure else None)

    async def _on_cancel(self, message) -> None:
        if message.reply:
            # a client's own: answered once, by the queue
            return
        try:
            self._stop(json.loads(message.data))
        except ValueError:
            log.warning("a cancel without JSON")

    def _stop(self, wanted) -> bool:
        """Ends the job named by its message id or by the client's own id; without a name the one that runs."""
        wanted = wanted if isinstance(wanted, dict) else {}
        name = wanted.get("id")
        found = self.lane.busy() if name is None else None
        for job, _, _ in self._jobs.values():
            if name is not None and name in (job.id, job.correlation):
                found = job
        if found is None:
            return False
        task = asyncio.ensure_future(self._insist(found))
        self._keep(task)
        return True

    async def _insist(self, job: Job) -> None:
        """Tells a job to end until it does: code may catch the exception, and C code must return first."""
        while job.id in self._jobs:
            if self.lane.stop(job):
                await self._finish(job, Reply.failed(Failure("cancelled", "the job was cancelled before its turn")))
            await asyncio.sleep(0.5)

    # --- signs of life ---

    async def _show_life(self) -> None:
        """An empty progress for every job in hand, also for those that wait."""
        while True:
            await asyncio.sleep(self.options.progress)
            for job, message, _ in list(self._jobs.values()):
                await self._interim(message, "progress", b"")

    async def _show_output(self) -> None:
        """`ack` when a job's turn comes, then what it prints."""
        acknowledged: Job | None = None
        while True:
            await asyncio.sleep(SHOW)
            job = self.lane.busy()
            found = self._jobs.get(job.id) if job and job.running else None
            if not found:
                continue
            if job is not acknowledged:
                acknowledged = job
                await self._interim(found[1], "ack", b"")
            # in a message a character takes up to twelve bytes
            most = max(PIECE, self.connection.max_payload // 16)
            if job.id in self._jobs and (fresh := job.output.fresh(most)):
                await self._interim(found[1], "progress", json.dumps({"output": fresh}).encode())

    async def _interim(self, message, status: str, body: bytes) -> None:
        if self.connection.is_connected:
            await self.connection.publish(message.reply, body, headers={"Gw-Status": status, "Gw-Time": now()})

    # --- bounds ---

    async def _until_end(self, work):
        """The result of `work`, or None when the worker is told to end before."""
        work, end = asyncio.ensure_future(work), asyncio.ensure_future(self._end.wait())
        await asyncio.wait((work, end), return_when=asyncio.FIRST_COMPLETED)
        end.cancel()
        if not work.done():
            work.cancel()
        try:
            return await work
        except asyncio.CancelledError:
            return None

    async def _bounded(self, work) -> None:
        try:
            await asyncio.wait_for(work, PATIENCE * 2)
        except Exception as error:
            log.debug("left undone: %r", error)

    def _keep(self, task) -> None:
        # the loop itself would let go of a task that nobody holds
        self._kept = getattr(self, "_kept", set())
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)


async def _log_error(error) -> None:
    log.warning("NATS: %s", error or repr(error))
