"""One Chrome trace of two: torch's profiler and Horovod's timeline, on one clock.

torch counts microseconds from `baseTimeNanoseconds`, Horovod from
`start_time_since_epoch_in_micros`, both by the system's clock, and rank 0 writes both. The merged
file opens in Perfetto or chrome://tracing: Horovod is one process in it, and each tensor a thread.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from hvdfilter import files
from hvdfilter.installation import reason

HOROVOD = 2**31 - 1  # above every process number of a system


def merge(torch_trace: Path, timeline: Path | None, until: float, out: Path) -> str:
    """Write both as one file, or torch's alone; a sentence on what is missing of it, or "".

    timeline: None where Horovod wrote none; until: microseconds since 1970 from which on nothing
    of it is wanted, for other ranks have gone on.
    """
    trace, missing = json.loads(torch_trace.read_text()), ""
    if timeline is not None:
        base = float(trace.get("baseTimeNanoseconds", 0)) / 1000
        try:
            events = shifted(json.loads(timeline.read_text() or "[]"), base)
            trace["traceEvents"] += before(events, until - base)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as broken:
            missing = (
                f"{out} has torch's trace alone, for Horovod's timeline is damaged "
                f"({type(broken).__name__}: {reason(broken)})"
            )
    files.write(out, json.dumps(trace))
    return missing


def shifted(timeline: list[dict[str, Any]], base: float) -> list[dict[str, Any]]:
    """Horovod's events as those of one process. base: microseconds since 1970 of the new zero."""
    start, events = 0.0, []
    for event in timeline:
        args = event.get("args", {})
        if "start_time_since_epoch_in_micros" in args:
            start = float(args["start_time_since_epoch_in_micros"])
            continue
        event = dict(event, tid=event.get("pid", 0), pid=HOROVOD)
        if event["ph"] == "M":
            if event["name"] != "process_name":
                continue
            event["name"] = "thread_name"
        else:
            event["ts"] += start - base
        events.append(event)
    named = {"ph": "M", "name": "process_name", "pid": HOROVOD, "args": {"name": "Horovod"}}
    return [named, *events] if events else []


def before(events: list[dict[str, Any]], until: float) -> list[dict[str, Any]]:
    """Those that began before `until`, each with its end.

    What has none is ended at `until`, or a viewer would draw it for ever.
    """
    kept, begun = [], defaultdict[int, list[bool]](list)  # by thread: whether each was kept
    for event in events:
        inside = event.get("ts", 0.0) < until
        if event["ph"] == "B":
            begun[event["tid"]].append(inside)
        elif event["ph"] == "E":
            inside = bool(begun[event["tid"]]) and begun[event["tid"]].pop()
        if inside:
            kept.append(event)
    for thread, open_ones in begun.items():
        kept += [{"ph": "E", "ts": until, "pid": HOROVOD, "tid": thread}] * sum(open_ones)
    return kept
