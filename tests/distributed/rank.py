"""What mpirun starts in the place of a rank: it asks `warm.py` for one and ends as that one ends.

    python -I -S rank.py FOLDER SERVERS SOURCE [ARGUMENT ...]

It imports next to nothing, so that it starts in a few milliseconds.
"""

import array
import json
import os
import signal
import socket
import sys
from contextlib import suppress

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

folder, servers, *arguments = sys.argv[1:]
server = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0")) % int(servers)
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.path.join(folder, str(server)))
request = {"folder": os.getcwd(), "environment": dict(os.environ), "arguments": arguments}
streams = array.array("i", (0, 1, 2))
note = (socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)
data = json.dumps(request).encode() + b"\n"
sent = connection.sendmsg([data], [note])
connection.sendall(data[sent:])
answers = connection.makefile()
number = int(answers.readline())


def pass_on(which: int, frame: object) -> None:
    """Hand a signal to the process that stands for this one."""
    with suppress(ProcessLookupError):
        os.kill(number, which)


for passed_on in PASSED_ON:
    signal.signal(passed_on, pass_on)
code = int(answers.readline())
if code < 0:
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
