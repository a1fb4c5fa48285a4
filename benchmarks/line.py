"""A line to a server: a proxy that adds a round trip, and has a bandwidth of its own.

``python -m benchmarks.line HOST PORT MILLISECONDS MBITS`` prints the port that it listens on. For
each line on its standard input it prints what it has done so far as JSON, and it ends with its
input.

Bytes arrive half a round trip after they were sent, in the order in which they were sent. With a
bandwidth they also wait for one another, in each direction. A new connection takes a round trip
before its first byte leaves, as TCP does. What is left out: slow start and lost packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import deque
from typing import IO, TYPE_CHECKING, Final, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

UNDER_WAY: Final = 4 * 1024 * 1024
"""Bytes of one connection and direction that may be on the line: more than it holds in a round
trip at a Gbit/s. A sender of more has to wait, as for TCP's window."""


class Line(NamedTuple):
    """What a line is like.

    Attributes:
        milliseconds: there and back.
        mbits: Mbit/s in each direction; 0 for no limit.
    """

    milliseconds: float
    mbits: float = 0

    def __str__(self) -> str:
        rate = f", {self.mbits:g} Mbit/s" if self.mbits else ""
        return f"{self.milliseconds:g} ms{rate}"


class Done(NamedTuple):
    """What a line has done since it was started.

    Attributes:
        cpu: CPU seconds. If it used a whole core, it would be the limit.
        late: the mean of the seconds by which bytes were delivered later than they should be.
        connections: how many were opened.
        moved: bytes, in both directions.
    """

    cpu: float
    late: float
    connections: int
    moved: int


class RunningLine:
    """A line in a process of its own; ``port`` on loopback is its near end."""

    def __init__(self, asked: IO[str], said: IO[str]) -> None:
        self._asked = asked
        self._said = said
        self.port = int(said.readline())

    def done(self) -> Done:
        """What it has done so far."""
        print(file=self._asked, flush=True)
        return Done(**json.loads(self._said.readline()))


@contextlib.contextmanager
def running(host: str, port: int, line: Line) -> Iterator[RunningLine]:
    """Run a line to this address."""
    words = [sys.executable, "-m", "benchmarks.line", host, *map(str, (port, *line))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        asked, said = cast("IO[str]", child.stdin), cast("IO[str]", child.stdout)
        try:
            yield RunningLine(asked, said)
        finally:
            asked.close()


class _Direction:
    """All bytes that go one way, of all connections together."""

    def __init__(self, line: Line) -> None:
        self.delay = line.milliseconds / 2000
        self._seconds_per_byte = 8 / (line.mbits * 1e6) if line.mbits else 0.0
        self._free_at = 0.0
        self.late = 0.0
        self.pieces = 0
        self.moved = 0

    def arrival(self, size: int, not_before: float) -> float:
        """When bytes arrive that are sent now, in the loop's time."""
        self._free_at = max(self._free_at, not_before) + size * self._seconds_per_byte
        return self._free_at + self.delay

    def delivered(self, size: int, due: float, now: float) -> None:
        self.late += now - due
        self.pieces += 1
        self.moved += size


class _End(asyncio.Protocol):
    """One end of a connection: what arrives here is delivered at the other end."""

    def __init__(self, direction: _Direction, opened_at: float) -> None:
        self._direction = direction
        self._opened_at = opened_at
        self._loop = asyncio.get_running_loop()
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._blocked = False
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=UNDER_WAY)

    def data_received(self, data: bytes) -> None:
        not_before = max(self._loop.time(), self._opened_at)
        self._under_way.append((self._direction.arrival(len(data), not_before), data))
        self._held += len(data)
        if self._held > UNDER_WAY and self.transport is not None:
            self.transport.pause_reading()
        self._schedule()

    def eof_received(self) -> bool:
        self._closing = True
        self._schedule()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._closing = True
        self._schedule()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other._blocked = True

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other._blocked = False
            self.other._schedule()

    def end(self) -> None:
        """Say that nothing more comes, and hang up if nothing more goes either."""
        transport, other = self.transport, self.other
        if transport is None or other is None or other.transport is None:
            return
        if transport.is_closing():
            other.transport.close()
        elif self._closing and not self._under_way:
            transport.close()
        else:
            transport.write_eof()

    def _schedule(self) -> None:
        if self._timer is not None or self._blocked or self.other is None:
            return
        if self._under_way:
            self._timer = self._loop.call_at(self._under_way[0][0], self._deliver)
        elif self._closing:
            self._loop.call_later(self._direction.delay, self.other.end)

    def _deliver(self) -> None:
        self._timer = None
        now = self._loop.time()
        target = self.other and self.other.transport
        while self._under_way and self._under_way[0][0] <= now and not self._blocked:
            due, data = self._under_way.popleft()
            was_full = self._held > UNDER_WAY
            self._held -= len(data)
            self._direction.delivered(len(data), due, now)
            if target is not None and not target.is_closing():
                target.write(data)
            if was_full and self._held <= UNDER_WAY and self.transport is not None:
                self.transport.resume_reading()
        self._schedule()


async def _serve(host: str, port: int, line: Line) -> None:
    loop = asyncio.get_running_loop()
    there, back = _Direction(line), _Direction(line)
    connections = 0
    opening: set[asyncio.Task[None]] = set()

    def near() -> _End:
        nonlocal connections
        connections += 1
        end = _End(there, loop.time() + line.milliseconds / 1000)
        task = loop.create_task(connect(end))
        opening.add(task)
        task.add_done_callback(opening.discard)
        return end

    async def connect(end: _End) -> None:
        try:
            _, far = await loop.create_connection(lambda: _End(back, 0.0), host, port)
        except OSError:
            if end.transport is not None:
                end.transport.close()
            return
        end.other, far.other = far, end
        end._schedule()
        far._schedule()

    server = await loop.create_server(near, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while await asked.readline():
        pieces = max(1, there.pieces + back.pieces)
        done = Done(
            time.process_time(),
            (there.late + back.late) / pieces,
            connections,
            there.moved + back.moved,
        )
        print(json.dumps(done._asdict()), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), Line(float(sys.argv[3]), float(sys.argv[4]))))
