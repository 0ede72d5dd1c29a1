"""What `cuobjdump -sass` prints, as instructions: guard, opcode, modifiers, operands."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s+/\* 0x([0-9a-f]{16}) \*/")
GUARD = re.compile(r"^@(!?)(U?P\w)\s+")
REGISTER = re.compile(
    r"^(?P<sign>[-~!]*)(?P<bar>\|?)(?P<file>UR|UP|R|P|B)(?P<number>\d+|Z|T)\|?(?P<rest>(\.\w+)*)$"
)
CONSTANT = re.compile(
    r"^(-?)(\|?)c\[0x([0-9a-f]+)\]\[(?:(U?R(?:\d+|Z))\+?)?(?:0x([0-9a-f]+))?\]\|?$"
)
ADDRESS = re.compile(r"^(?:desc\[UR\d+\])?\[(.*)\]$")
TERM = re.compile(r"^(U?R)(\d+|Z)((?:\.\w+)*)$")
INTEGER = re.compile(r"^(-?)0x([0-9a-f]+)$")
FLOAT = re.compile(r"^[-+]?(\d+(\.\d*)?(e[-+]?\d+)?|INF|QNAN|SNAN)$")


class UnknownInstruction(Exception):
    """State code that this interpreter has not been taught."""


@dataclass(frozen=True)
class Operand:
    """One operand, by its kind.

    R, UR, P, UP, B: a register, -1 for the one that is always zero or true. imm: 32 bits. float:
    the same, written as a number. const: a place in a constant bank. mem: an address. special:
    SR_..., PR and the like.
    """

    kind: str
    number: int = 0
    negative: bool = False
    absolute: bool = False
    inverted: bool = False
    negated: bool = False
    suffix: str = ""
    base: int = -1  # of mem, const: the register, -1 for none
    wide: bool = False  # of mem: the base is a pair of registers
    scale: int = 1  # of mem: what the base is multiplied by
    uniform: int = -1  # of mem: a uniform register that is added
    uniform_wide: bool = False
    name: str = ""


@dataclass(frozen=True)
class Instruction:
    """One instruction and where it stands."""

    address: int
    text: str
    opcode: str
    modifiers: frozenset[str]
    operands: tuple[Operand, ...]
    guard: Operand | None
    bits: int  # the encoding's word 1, which holds an immediate to the bit

    @property
    def name(self) -> str:
        """Opcode and modifiers, as printed."""
        return re.sub(GUARD, "", self.text).split()[0]

    def unknown(self, why: str) -> UnknownInstruction:
        """The error that names this instruction."""
        return UnknownInstruction(
            f"The interpreter of machine code does not know {why} of `{self.text}` at "
            f"{self.address:#x}: teach it in benchmarks/sass."
        )


@dataclass
class Function:
    """The code of one kernel."""

    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def index(self) -> dict[int, int]:
        """Address to position."""
        return {each.address: at for at, each in enumerate(self.instructions)}


def split(listing: str) -> dict[str, str]:
    """The listing of each function by its name."""
    parts = re.split(r"^\s+Function : (\S+)\s*$", listing, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def parse(name: str, listing: str) -> Function:
    """One function out of its part of the listing."""
    function = Function(name)
    for line in listing.splitlines():
        found = LINE.match(line)
        if found:
            address, text, code = found.groups()
            function.instructions.append(instruction(int(address, 16), text, int(code, 16)))
    for at, each in enumerate(function.instructions):
        if each.address != 16 * at:
            raise each.unknown("what stands before it, or the place")
    return function


def instruction(address: int, text: str, code: int = 0) -> Instruction:
    """One instruction as printed; `code` is the first 64 bits of its encoding."""
    text, bits = " ".join(text.split()), code >> 32
    guard, rest = None, text
    if found := GUARD.match(text):
        guard, rest = operand(found.group(1) + found.group(2), bits), text[found.end() :]
    mnemonic, _, tail = rest.partition(" ")
    opcode, *modifiers = mnemonic.split(".")
    # "RET.REL R66 0x0" and "R2 PR" have no comma between what are two operands.
    words = [w for part in tail.split(",") for w in part.split()]
    try:
        operands = tuple(operand(word, bits) for word in words)
    except ValueError as error:
        plain = Instruction(address, text, opcode, frozenset(modifiers), (), guard, bits)
        raise plain.unknown(f"the operand {error}") from None
    return Instruction(address, text, opcode, frozenset(modifiers), operands, guard, bits)


def operand(word: str, bits: int) -> Operand:
    """One operand; ValueError names what is not understood."""
    word = word.replace(".reuse", "")
    if found := REGISTER.match(word):
        sign, number = found["sign"], found["number"]
        return Operand(
            found["file"],
            int(number) if number.isdigit() else -1,
            negative="-" in sign,
            absolute=bool(found["bar"]),
            inverted="~" in sign,
            negated="!" in sign,
            suffix=found["rest"],
        )
    if found := INTEGER.match(word):
        value = int(found.group(2), 16)
        return Operand("imm", -value if found.group(1) else value)
    if FLOAT.match(word):
        return Operand("float", bits, name=word)
    if found := CONSTANT.match(word):
        sign, bar, bank, register, offset = found.groups()
        register = None if register in ("RZ", "URZ") else register
        return Operand(
            "const",
            int(offset or "0", 16),
            negative=bool(sign),
            absolute=bool(bar),
            base=int(register[1:]) if register and register[0] == "R" else -1,
            uniform=int(register[2:]) if register and register[0] == "U" else -1,
            name=bank,
        )
    if found := ADDRESS.match(word):
        return memory(found.group(1), word)
    if word.startswith("SR_") or word in ("PR", "UPR", "SRZ", "SB0"):
        return Operand("special", name=word)
    raise ValueError(word)


def memory(inside: str, word: str) -> Operand:
    """An address: [R2.64+UR4+0x10]."""
    number, base, wide, scale, uniform, uniform_wide = 0, -1, False, 1, -1, False
    for term in inside.split("+"):
        if found := TERM.match(term):
            register = -1 if found[2] == "Z" else int(found[2])
            suffix = found[3].split(".")[1:]
            if found[1] == "UR":
                uniform, uniform_wide = register, "64" in suffix
                continue
            base, wide = register, "64" in suffix
            for each in suffix:
                if each in ("X4", "X8", "X16"):
                    scale = int(each[1:])
                elif each not in ("64", "U32"):
                    raise ValueError(word)
        elif found := INTEGER.match(term):
            number = -int(found[2], 16) if found[1] else int(found[2], 16)
        else:
            raise ValueError(word)
    return Operand(
        "mem", number, base=base, wide=wide, scale=scale, uniform=uniform, uniform_wide=uniform_wide
    )
