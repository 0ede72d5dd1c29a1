"""Ranks that begin with torch and Horovod imported, which takes most of a short test's time.

A server imports them once and forks a process for each rank that mpirun starts. What mpirun starts
is `rank.py`, which hands over its arguments, environment and standard streams, passes signals on,
and ends as the forked process ends. MPI and hvdfilter itself are not imported before the fork: to
them a rank is a process as any other. Ranks of one job come from servers of their own, so that the
order of their sets differs as it does between processes.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

import numpy

SERVERS = 4
IMPORTS = ("torch", "torch.utils.data", "torch._dynamo", "scipy.optimize", "horovod.torch")
REQUEST_BYTES = 1 << 20


def serve(path: str) -> None:
    """Fork a process for each connection to the socket `path`, until standard input is closed.

    Returns in a forked process only, which is then to run what it was asked to.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    for name in IMPORTS:
        with suppress(ImportError):  # a program that needs it will say so
            importlib.import_module(name)
    gc.freeze()  # a fork that looks for garbage would copy what it shares
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for ranks
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        request, streams = _receive(connection)
        rank = os.fork()
        if rank == 0:
            connection.close()
            _become(request, streams)
            return
        _watch(connection, rank, streams)
        os._exit(0)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The request, and the standard streams of who asks."""
    places = array.array("i")
    room = socket.CMSG_SPACE(3 * places.itemsize)
    data, notes, _, _ = connection.recvmsg(REQUEST_BYTES, room)
    places.frombytes(notes[0][2])
    while not data.endswith(b"\n"):
        data += connection.recv(REQUEST_BYTES)
    return json.loads(data), list(places)


def _watch(connection: socket.socket, rank: int, streams: list[int]) -> None:
    """Tell the rank's number, then how it ended; end it if who asked is gone."""
    for stream in (*streams, 0, 1, 2):
        os.close(stream)
    connection.sendall(f"{rank}\n".encode())
    ended = os.pidfd_open(rank)
    ready, _, _ = select.select([connection, ended], [], [])
    if ended not in ready:
        os.kill(rank, signal.SIGKILL)
    _, status = os.waitpid(rank, 0)
    if ended in ready:
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Take over what makes a process: its streams, folder, environment and arguments."""
    for stream, place in zip(streams, (0, 1, 2), strict=True):
        os.dup2(stream, place)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    numpy.random.seed()
    sys.argv = request["arguments"]
    sys.path[0] = ""


def run() -> None:
    """The server, and in what it forks the program that is the first argument, as `python -c`."""
    serve(sys.argv[1])
    source, sys.argv = sys.argv[0], ["-c", *sys.argv[1:]]
    main = sys.modules["__main__"].__dict__
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]
    main.pop("__file__", None)
    exec(compile(source, "<string>", "exec"), main)


if __name__ == "__main__":
    run()
