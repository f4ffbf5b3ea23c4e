"""Length-prefixed MessagePack frames over a pair of file descriptors.

A frame is the length of its payload as 32 bits, big-endian, then a MessagePack value. Reads are large and writes
are gathered, so that a system call serves many small frames.
"""

import os
import struct
from typing import Any

import msgpack

from robo_eval_env.errors import StreamError

MAX_PAYLOAD = 16 * 1024 * 1024
"""Bytes that a payload may have; no sound request comes near."""

_READ_SIZE = 256 * 1024
_LENGTH = struct.Struct(">I")


class FrameReader:
    """Takes frames from a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Reads from `descriptor`, which stays the caller's to close."""
        self._descriptor = descriptor
        self._buffer = bytearray()

    def wait(self) -> bool:
        """Blocks until more bytes have come; returns False at the end of input.

        Raises:
            StreamError: The input ends inside a frame.
        """
        chunk = os.read(self._descriptor, _READ_SIZE)
        if chunk:
            self._buffer += chunk
            return True
        if self._buffer:
            raise StreamError(f"input ended inside a frame, after {len(self._buffer)} of its bytes")
        return False

    def take(self) -> list[Any]:
        """Returns the values of all frames that have arrived completely.

        Raises:
            StreamError: A frame is longer than allowed or holds no MessagePack value.
        """
        values = []
        start = 0
        available = len(self._buffer)
        with memoryview(self._buffer) as view:
            while available - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(view, start)
                if length > MAX_PAYLOAD:
                    raise StreamError(f"frame of {length} bytes announced, at most {MAX_PAYLOAD} are allowed")
                end = start + _LENGTH.size + length
                if end > available:
                    break
                values.append(_decode(view[start + _LENGTH.size : end]))
                start = end
        if start:
            del self._buffer[:start]
        return values


class FrameWriter:
    """Gathers frames for a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Writes to `descriptor`, which stays the caller's to close."""
        self._descriptor = descriptor
        self._packer = msgpack.Packer()
        self._pending: list[bytes] = []

    def put(self, value: Any) -> None:
        """Adds a frame to those that the next flush writes."""
        payload = self._packer.pack(value)
        self._pending.append(_LENGTH.pack(len(payload)))
        self._pending.append(payload)

    def flush(self) -> None:
        """Writes all gathered frames; blocks while the pipe is full."""
        if not self._pending:
            return
        remaining = memoryview(b"".join(self._pending))
        self._pending.clear()
        while remaining:
            remaining = remaining[os.write(self._descriptor, remaining) :]


def _decode(payload: memoryview) -> Any:
    """Decodes one payload, refusing anything but exactly one value."""
    try:
        return msgpack.unpackb(payload)
    except Exception as error:
        # msgpack raises a dozen unrelated classes for malformed input; all of them mean that the sender is broken.
        raise StreamError(f"frame of {len(payload)} bytes is not MessagePack ({type(error).__name__})") from error
