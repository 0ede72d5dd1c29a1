"""Branches, calls and barriers: where threads go on, and what they wait for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.sass.accesses import address32
from benchmarks.sass.fronts import Front
from benchmarks.sass.memory import Array
from benchmarks.sass.operands import predicate, u32, write_predicate
from benchmarks.sass.state import Parked, State
from benchmarks.sass.table import bind
from benchmarks.sass.text import Instruction
from benchmarks.sass.transfers import barrier, key_of

Places = list[tuple[int, Array]]  # threads, and the instruction they stand at
Control = Callable[[State, Instruction, int, "Front", Array], Places]


def known(i: Instruction, *modifiers: str) -> None:
    """Refuse a modifier that is not understood."""
    for modifier in sorted(i.modifiers - set(modifiers)):
        raise i.unknown(f"the modifier .{modifier}")


def parted(at: int, front: Front, taken: Array, target: int) -> Places:
    """Those that take a branch, and those that do not."""
    if taken.all():
        return [(target, front.threads)]
    if not taken.any():
        return [(at + 1, front.threads)]
    return [(target, front.threads[taken]), (at + 1, front.threads[~taken])]


def target_of(m: State, i: Instruction, address: int) -> int:
    """The instruction at an address."""
    if address not in m.index:
        raise i.unknown(f"the target {address:#x}")
    return m.index[address]


def bra(m: State, i: Instruction, at: int, front: Front, chosen: Array) -> Places:
    """A branch, on the guard and perhaps one more predicate; .U: a warp's."""
    known(i, "U", "DIV", "ANY")
    *conditions, target = i.operands
    for each in conditions:
        if "DIV" in i.modifiers:
            # Taken where the group is not all of the warp that is still there.
            whole = np.bincount(m.thread_numbers[m.alive] >> 5, minlength=len(m.UR[0]))
            size = np.bincount(front.lanes.warp, minlength=len(m.UR[0]))
            chosen = chosen & (size != whole)[front.lanes.warp]
        else:
            chosen = chosen & predicate(i, each)(m, front.lanes)
    if target.kind != "imm":
        raise i.unknown("the operands")
    if "ANY" in i.modifiers:  # the whole group, where any of it would
        chosen = np.isin(front.lanes.warp, front.lanes.warp[chosen])
    return parted(at, front, chosen, target_of(m, i, target.number))


def call(m: State, i: Instruction, at: int, front: Front, chosen: Array) -> Places:
    """A branch; the callee has been told in a register where to return to."""
    known(i, "REL", "NOINC")
    return parted(at, front, chosen, target_of(m, i, i.operands[-1].number))


def ret(m: State, i: Instruction, at: int, front: Front, chosen: Array) -> Places:
    """To the address in a register, each thread to its own."""
    known(i, "REL", "NODEC")
    offset = np.uint32(i.operands[1].number)
    to = np.broadcast_to(u32(i, 0)(m, front.lanes) + offset, front.threads.shape)
    places = [(at + 1, front.threads[~chosen])] if not chosen.all() else []
    return places + [
        (target_of(m, i, int(address)), front.threads[chosen & (to == address)])
        for address in np.unique(to[chosen])
    ]


def leave(m: State, i: Instruction, at: int, front: Front, chosen: Array) -> Places:
    """EXIT: nobody waits for these any more."""
    known(i)
    m.alive[front.threads[chosen]] = False
    return [(at + 1, front.threads[~chosen])] if not chosen.all() else []


def bssy(m: State, i: Instruction, at: int, front: Front, chosen: Array) -> Places:
    """Remember who is to come together again at the BSYNC of this register."""
    known(i, "RECONVERGENT", "RELIABLE")
    if not chosen.all():
        raise i.unknown("a guard that parts the group")
    m.meetings += 1
    m.barriers[i.operands[0].number, front.threads] = m.meetings
    return [(at + 1, front.threads)]


def bsync(m: State, i: Instruction, at: int, front: Front, chosen: Array) -> Places:
    """Wait for those of the same warp that came through the same BSSY, unless all are here."""
    known(i, "RECONVERGENT", "RELIABLE")
    if not chosen.all():
        raise i.unknown("a guard that parts the group")
    number = i.operands[0].number
    row = m.barriers[number]
    needed = np.isin(row, row[front.threads]) & m.alive
    missing = needed.reshape(-1, 32).sum(1)
    missing -= np.bincount(front.lanes.warp, minlength=len(missing))
    waits = missing[front.lanes.warp] > 0
    if waits.any():
        m.parked.append(Parked("BSYNC", number, at, at + 1, front.threads[waits]))
    return [(at + 1, front.threads[~waits])] if not waits.all() else []


def breaks(m: State, i: Instruction, at: int, front: Front, chosen: Array) -> Places:
    """BREAK: these will not come to that BSYNC."""
    known(i, "RELIABLE")
    m.barriers[i.operands[-1].number, front.threads[chosen]] = 0
    return [(at + 1, front.threads)]


def park(kind: str, *modifiers: str) -> Control:
    """Wait for the warp, the block or the cluster; a number, if any, is the first operand."""

    def wait(m: State, i: Instruction, at: int, front: Front, chosen: Array) -> Places:
        known(i, *modifiers)
        number = i.operands[0].number if i.operands else 0
        if len(i.operands) > 1 or (i.operands and i.operands[0].kind != "imm"):
            raise i.unknown("a barrier of some threads")
        stays = front.threads[chosen]
        if len(stays):
            m.parked.append(Parked(kind, number, at, at + 1, stays))
        return [(at + 1, front.threads[~chosen])] if not chosen.all() else []

    return wait


def arrive(m: State, i: Instruction, at: int, front: Front, chosen: Array) -> Places:
    """UCGABAR_ARV: tell the cluster, and go on."""
    known(i)
    m.arrived[front.threads[chosen]] += 1
    return [(at + 1, front.threads)]


def syncs(m: State, i: Instruction, at: int, front: Front, chosen: Array) -> Places:
    """SYNCS: a wait for the end of an mbarrier's phase, or what operates on one, which is no wait.

    TRYWAIT holds a thread back for a time and then tells it to try again; here it holds it until
    the phase is over, so that it is issued once.
    """
    stays = front.some(chosen)
    if "PHASECHK" not in i.modifiers:
        if chosen.any():
            bind(i)(m, stays)
        return [(at + 1, front.threads)]
    known(i, "PHASECHK", "TRANS64", "TRYWAIT")
    if "TRYWAIT" not in i.modifiers or not chosen.all():
        raise i.unknown("a test without a wait")
    keys = key_of(m, stays, address32(i, 1)(m, stays))
    parity = np.broadcast_to(u32(i, 2)(m, stays) >> np.uint32(31), front.threads.shape).copy()
    everyone = front.threads

    def over() -> Array:
        found = np.zeros(len(m.alive), bool)
        phases = np.array([barrier(m, key).phase & 1 for key in keys])
        found[everyone] = phases != parity
        return found

    # Whoever goes on was told that the phase is over.
    write_predicate(i, 0)(m, stays, np.ones(len(everyone), bool))
    m.parked.append(Parked("MBARRIER", len(m.parked), at, at + 1, everyone, over))
    return []


def release(m: State) -> Places:
    """Who need not wait any more. BSYNC first: what comes together runs as one."""
    for kind in ("BSYNC", "WARPSYNC", "MBARRIER", "BAR", "CLUSTER"):
        places: dict[tuple[int, int], list[Array]] = {}
        for number in {each.number for each in m.parked if each.kind == kind}:
            waiting = [each for each in m.parked if each.kind == kind and each.number == number]
            free = ready(m, kind, number, waiting)
            for order, each in enumerate(waiting):
                let = free[each.threads]
                gone, each.threads = each.threads[let], each.threads[~let]
                groups = group_of(m, kind, number, order, gone)
                for group in np.unique(groups).tolist():
                    places.setdefault((each.then, group), []).append(gone[groups == group])
        m.parked = [each for each in m.parked if len(each.threads)]
        if places:
            return [(at, np.sort(np.concatenate(who))) for (at, _), who in places.items()]
    return []


def group_of(m: State, kind: str, number: int, order: int, threads: Array) -> Array:
    """What tells apart the threads that go on apart: only BSYNC and WARPSYNC make one of many."""
    if kind == "BSYNC":
        return m.barriers[number, threads]
    apart = 0 if kind == "WARPSYNC" else 1 + order + len(m.parked) * number
    return np.full(len(threads), apart)


def ready(m: State, kind: str, number: int, waiting: list[Parked]) -> Array:
    """Which threads may go on, for all that wait at one barrier."""
    if kind == "MBARRIER":
        return np.any([each.over() for each in waiting if each.over is not None], 0)
    there = np.zeros(len(m.alive), bool)
    for each in waiting:
        there[each.threads] = True
    if kind == "CLUSTER":
        # Each phase needs everybody's arrival; the slowest decides how many phases are over.
        rows = np.where(m.alive, m.arrived, np.iinfo(np.int64).max)
        per = rows.reshape(-1, m.cluster * rows.size // m.blocks)
        over = np.repeat(per.min(1), per.shape[1])
        free = there & (over > m.waited)
        m.waited[free] += 1
        return free
    if kind == "BSYNC":
        met = m.barriers[number]
        parts = [there & (met == each) for each in np.unique(met[there])]
        return np.any([unhindered(part, (met == met[part][0]) & m.alive, 32) for part in parts], 0)
    size = 32 if kind == "WARPSYNC" else m.alive.size // m.blocks
    return unhindered(there, m.alive, size)


def unhindered(there: Array, needed: Array, size: int) -> Array:
    """Those that are there, where in their warp or block of `size` threads nobody is missing."""
    complete = (~needed | there).reshape(-1, size).all(1)
    return there & np.repeat(complete, size)


CONTROL: dict[str, Control] = {
    "BRA": bra,
    "CALL": call,
    "RET": ret,
    "EXIT": leave,
    "BSSY": bssy,
    "BREAK": breaks,
    "BSYNC": bsync,
    "WARPSYNC": park("WARPSYNC", "ALL"),
    "BAR": park("BAR", "SYNC", "DEFER_BLOCKING"),
    "SYNCS": syncs,
    "UCGABAR_ARV": arrive,
    "UCGABAR_WAIT": park("CLUSTER"),
}
