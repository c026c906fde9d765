"""The short way from *acquire* to the decoders of its host: each message is a packet from one loop to the other.

Over a PUB socket a message wakes two threads of ZeroMQ before it wakes the decoder; a packet of a Unix socket wakes
the decoder alone. It is no second bus: a message that finds a decoder's queue full is left out, and the decoder finds
it in the log, as after any other loss. One that is too large for a packet ends the lanes: more like it may come, and
who hears none of them does not know that any are missing. Others, and decoders elsewhere, hear the PUB socket.
"""

import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

#: Largest packet, in bytes; what the kernel is asked to keep of them, and grants as far as it may.
LARGEST, KEPT = 1 << 18, 1 << 22
#: Frames of a message.
_FRAMES = 8
#: Longest address of a Unix socket, in bytes.
_PATH_BYTES = 107
_HEAD = struct.Struct(f"<{_FRAMES + 1}I")


def path_of(samples: str) -> Path | None:
    """Where the lane is of who publishes samples at an address; None where there can be none."""
    path = f"{samples.removeprefix('ipc://')}.lane"
    if sys.platform != "linux" or not samples.startswith("ipc://") or len(os.fsencode(path)) > _PATH_BYTES:
        return None
    return Path(path)


def room() -> int:
    """Bytes that the kernel keeps for a lane whose reader is elsewhere."""
    with contextlib.closing(_packets()) as one:
        return _ask_for_room(one)


class Lanes:
    """*acquire*'s end: one lane for each decoder process that has connected.

    One thread accepts them, another sends.

    Parameters
    ----------
    path : Path
        In a folder for this user alone.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)  # of a process that crashed; a second one has been refused by the PUB socket
        self.socket = _packets()
        self.socket.bind(str(path))
        self.socket.listen()
        self._path = path
        self._open: tuple[socket.socket, ...] = ()
        self._left_out = 0
        self._changing = threading.Lock()

    def accept(self) -> None:
        """Take in who has connected."""
        # Until nobody waits, or no more files may be open: then who waits hears nothing, and asks the log.
        with contextlib.suppress(OSError):
            while True:
                lane, _ = self.socket.accept()
                lane.setblocking(False)
                _ask_for_room(lane)
                with self._changing:
                    self._open = (*self._open, lane)

    def send(self, frames: Sequence[bytes]) -> None:
        """Send a message to all, as far as it can be sent without waiting; hang up where it is too large to be sent."""
        if not self._open:
            return
        sizes = [len(frame) for frame in frames]
        if len(frames) > _FRAMES or sum(sizes) + _HEAD.size > LARGEST:
            for lane in self._open:
                self._drop(lane)
            return
        packet = [_HEAD.pack(len(frames), *sizes, *[0] * (_FRAMES - len(frames))), *frames]
        for lane in self._open:
            try:
                lane.sendmsg(packet)
            except (BlockingIOError, MemoryError):
                self._left_out += 1
            except OSError:  # its decoder is gone, or the kernel has no room for a packet of this size
                self._drop(lane)

    def status(self) -> dict[str, int]:
        """Who is connected, and messages that found a full queue; those who missed them asked the log."""
        return {"open": len(self._open), "left_out": self._left_out}

    def close(self) -> None:
        """Hang up."""
        for lane in (*self._open, self.socket):
            lane.close()
        self._path.unlink(missing_ok=True)

    def _drop(self, lane: socket.socket) -> None:
        with self._changing:
            self._open = tuple(one for one in self._open if one is not lane)
        lane.close()


class Lane:
    """A decoder's end.

    Parameters
    ----------
    path : Path
        Where *acquire* listens.

    Raises
    ------
    OSError
        It does not.
    """

    def __init__(self, path: Path) -> None:
        self.socket = _packets()
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        #: Nothing will come any more: *acquire* has hung up, or is gone.
        self.over = False
        self._packet = bytearray(LARGEST)
        self._view = memoryview(self._packet)

    def receive(self) -> list[bytes] | None:
        """The next message that is here; None where there is none."""
        try:
            n = self.socket.recv_into(self._packet)
        except BlockingIOError:
            return None
        except OSError:
            n = 0
        if n < _HEAD.size:
            self.over = True
            return None
        count, *sizes = _HEAD.unpack_from(self._packet)
        frames, at = [], _HEAD.size
        for size in sizes[:count]:
            frames.append(bytes(self._view[at : at + size]))
            at += size
        return frames

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def _packets() -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    found.setblocking(False)
    return found


def _ask_for_room(lane: socket.socket) -> int:
    """Have the kernel keep as much as it grants; how much that is."""
    lane.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KEPT)
    return lane.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
