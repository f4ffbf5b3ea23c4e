"""A worker seen from its parent: what the bench and the tests drive it with.

The environment server has its own client, in Rust; this one handles a request at a time unless told otherwise.
"""

import os
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import msgpack


class WorkerProcess:
    """A running `robo_eval_env worker`, ended with the `with` block."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Starts the process with extra environment variables; it finds the modules that we find."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "robo_eval_env", "worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
        )

    def __enter__(self) -> "WorkerProcess":
        """Returns itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ends the worker; kills it if the block failed."""
        if error is not None:
            self._process.kill()
        self.finish()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, *requests: Any) -> None:
        """Sends requests without waiting for their answers."""
        payloads = [msgpack.packb(request) for request in requests]
        self.send_bytes(b"".join(struct.pack(">I", len(payload)) + payload for payload in payloads))

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def receive(self) -> Any:
        """Returns the next answer."""
        head = self._process.stdout.read(4)
        if len(head) < 4:
            _, errors = self._process.communicate()
            raise EOFError(f"worker ended with code {self._process.returncode}: {errors.decode()}")
        return msgpack.unpackb(self._process.stdout.read(struct.unpack(">I", head)[0]))

    def call(self, op: str, **fields: Any) -> Any:
        """Sends a request and returns its answer."""
        self.send({"op": op, **fields})
        return self.receive()

    def cpu_seconds(self) -> float:
        """Returns the processor time that the worker has used so far."""
        # Linux numbers the clock of a process by the complement of its id, shifted by three bits that say which clock.
        return time.clock_gettime((~self.pid << 3) | 2)

    def finish(self) -> tuple[int, str]:
        """Closes the worker's input and returns its exit code and what it logged."""
        if self._process.stdin.closed:
            return self._process.returncode, ""
        _, errors = self._process.communicate()
        return self._process.returncode, errors.decode()
