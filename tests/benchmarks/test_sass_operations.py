"""Each operation against plain Python, whose integers and fractions know no width or rounding."""

from __future__ import annotations

import itertools
import math
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from benchmarks.sass.memory import Fault, Region
from benchmarks.sass.text import UnknownInstruction
from tests.benchmarks.one_warp import LANES, execute, machine, pair

# Rounding in a direction is the C library's, by numbers that each system has its own of.
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are built on Linux only")

WORD = 1 << 32
EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF]


def words(seed: int) -> np.ndarray:
    """32 words, the edges among them."""
    found = np.random.default_rng(seed).integers(0, WORD, LANES, np.uint64).astype(np.uint32)
    found[: len(EDGES)] = np.roll(EDGES, seed)
    return found


def signed(x: int, bits: int = 32) -> int:
    return x - (1 << bits) if x >> (bits - 1) else x


def test_bytes_are_permuted() -> None:
    a, c = words(1), words(2)
    for choice in (0x3210, 0x7610, 0x5410, 0x0654, 0x9910, 0xBA98, 0xFEDC):
        found = execute(f"PRMT R0, R1, {choice:#x}, R2", R1=a, R2=c).R[0]
        for x, z, value in zip(a, c, found, strict=True):
            eight = int(x).to_bytes(4, "little") + int(z).to_bytes(4, "little")
            nibbles = [choice >> 4 * k & 15 for k in range(4)]
            taken = [
                (0xFF if eight[n & 7] > 127 else 0) if n & 8 else eight[n & 7] for n in nibbles
            ]
            assert int(value) == int.from_bytes(bytes(taken), "little")


def test_logic_of_three() -> None:
    a, b, c = words(1), words(2), words(3)
    # The table is the function's value with a=0xf0, b=0xcc, c=0xaa in place of the words.
    functions = {
        0xC0: lambda x, y, z: x & y,
        0xFC: lambda x, y, z: x | y,
        0x96: lambda x, y, z: x ^ y ^ z,
        0xE2: lambda x, y, z: x & z if 0 else (y & x) | (~y & z),
        0x33: lambda x, y, z: ~y,
        0x2A: lambda x, y, z: z & ~(x & y),
        0x00: lambda x, y, z: 0,
        0xFF: lambda x, y, z: -1,
    }
    for lut, function in functions.items():
        assert function(0xF0, 0xCC, 0xAA) & 0xFF == lut
        made = execute(f"LOP3.LUT P1, R0, R1, R2, R3, {lut:#x}, !PT", R1=a, R2=b, R3=c)
        expected = [
            function(int(x), int(y), int(z)) % WORD for x, y, z in zip(a, b, c, strict=True)
        ]
        assert made.R[0].tolist() == expected
        assert made.P[1].tolist() == [value != 0 for value in expected]


def test_products_of_64_bits() -> None:
    a, b = words(3), words(5)
    c = words(7).astype(np.uint64) << np.uint64(32) | words(8)
    for name, number in (("", signed), (".U32", int)):
        made = execute(f"IMAD.WIDE{name} R0, R2, R3, R4", R2=a, R3=b, R4_64=c)
        expected = [
            (number(int(x)) * number(int(y)) + int(z)) % (1 << 64)
            for x, y, z in zip(a, b, c, strict=True)
        ]
        assert pair(made, 0).tolist() == expected
        # The upper half of the same; its addend is a pair, as divisions by a constant show.
        high = execute(f"IMAD.HI{name} R0, R2, R3, R4", R2=a, R3=b, R4_64=c)
        assert high.R[0].tolist() == [value >> 32 for value in expected]


def test_a_difference_of_64_bits() -> None:
    # -x is ~x + 1: where the lower half of x is 0 it carries, which -x in 32 bits would not.
    a = words(1).astype(np.uint64) << np.uint64(32) | words(2)
    b = words(3).astype(np.uint64) << np.uint64(32) | words(4)
    b[:4] &= np.uint64(0xFFFFFFFF00000000)
    made = machine(["IADD3 R0, P0, R2, -R4, RZ", "IADD3.X R1, R3, ~R5, RZ, P0, !PT", "EXIT"])
    for number, value in ((2, a), (4, b)):
        made.R[number] = value.astype(np.uint32)
        made.R[number + 1] = (value >> np.uint64(32)).astype(np.uint32)
    made.run()
    assert pair(made, 0).tolist() == [
        (int(x) - int(y)) % (1 << 64) for x, y in zip(a, b, strict=True)
    ]


@pytest.mark.parametrize("name", ["LT", "LE", "GT", "GE", "EQ", "NE"])
@pytest.mark.parametrize("kind", ["", ".U32"])
def test_a_comparison_of_64_bits(name: str, kind: str) -> None:
    pairs = list(itertools.product([0, 1, 0x80000000, 0xFFFFFFFF], repeat=2))
    a = np.array([x << 32 | y for x, y in pairs] * 2, np.uint64)
    b = np.roll(a, 5)
    b[16:20] = a[16:20]
    b[20:24] = np.roll(a[20:24], 1)  # the same upper halves, which leave it to the lower
    made = machine(
        [
            f"ISETP.{name}.U32.AND P0, PT, R2, R4, PT",
            f"ISETP.{name}{kind}.AND.EX P0, P1, R3, R5, PT, P0",
            "EXIT",
        ]
    )
    for number, value in ((2, a), (4, b)):
        made.R[number] = value.astype(np.uint32)
        made.R[number + 1] = (value >> np.uint64(32)).astype(np.uint32)
    made.run()
    operator = getattr(int, f"__{name.lower()}__")
    expected = []
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        expected.append(operator(x, y) if kind else operator(signed(x, 64), signed(y, 64)))
    assert made.P[0].tolist() == expected
    assert made.P[1].tolist() == [not value for value in expected]


def test_shifts_of_pairs() -> None:
    low, high = words(1), words(2)
    shifts = np.arange(LANES, dtype=np.uint32) * 3  # up to 93: beyond every width
    forms = {
        "SHF.L.U32": lambda x, y, s: x << s,
        "SHF.L.U64.HI": lambda x, y, s: (y << 32 | x) << s >> 32,
        "SHF.R.U64": lambda x, y, s: (y << 32 | x) >> s,
        "SHF.R.U32.HI": lambda x, y, s: y >> s,
        "SHF.R.S32.HI": lambda x, y, s: signed(y) >> s,
        "SHF.R.S64": lambda x, y, s: signed(y << 32 | x, 64) >> s,
        "SHF.R.W.U32": lambda x, y, s: (y << 32 | x) >> s % 32,
    }
    for name, function in forms.items():
        found = execute(f"{name} R0, R1, R3, R2", R1=low, R2=high, R3=shifts).R[0]
        expected = [
            function(int(x), int(y), int(s)) % WORD
            for x, y, s in zip(low, high, shifts, strict=True)
        ]
        assert found.tolist() == expected, name


def test_addresses_of_64_bits() -> None:
    # base + 8 * index, as the compiler makes it of a low and a high part.
    index, base = words(1).astype(np.uint64), words(3).astype(np.uint64) << np.uint64(20)
    index[16:] |= words(4)[16:].astype(np.uint64) << np.uint64(32)
    made = machine(["LEA R0, P0, R2, R4, 0x3", "LEA.HI.X R1, R2, R5, R3, 0x3, P0", "EXIT"])
    for number, value in ((2, index), (4, base)):
        made.R[number] = value.astype(np.uint32)
        made.R[number + 1] = (value >> np.uint64(32)).astype(np.uint32)
    made.run()
    assert pair(made, 0).tolist() == [
        (8 * int(x) + int(y)) % (1 << 64) for x, y in zip(index, base, strict=True)
    ]
    # Division by 32 of a signed number.
    x = words(5)
    found = execute("LEA.HI.SX32 R0, R1, R2, 0x1b", R1=x, R2=words(6)).R[0]
    assert found.tolist() == [
        (signed(int(a)) // 32 + int(b)) % WORD for a, b in zip(x, words(6), strict=True)
    ]


def exact(value: Fraction, direction: str) -> float:
    """The float64 nearest to a fraction, or the next one in a direction."""
    near = value.numerator / value.denominator
    if direction == "RP" and Fraction(near) < value:
        return math.nextafter(near, math.inf)
    if direction == "RM" and Fraction(near) > value:
        return math.nextafter(near, -math.inf)
    if direction == "RZ" and abs(Fraction(near)) > abs(value):
        return math.nextafter(near, 0.0)
    return near


@pytest.mark.parametrize("direction", ["", ".RP", ".RM", ".RZ"])
def test_fused_products_of_float64(direction: str) -> None:
    # c is close to -a*b, so that what a product rounded by itself would lose is most of the result.
    random = np.random.default_rng(1)
    a, b = random.standard_normal(LANES), random.standard_normal(LANES)
    c = -a * b * (1 + random.integers(-2, 3, LANES) * 2.0**-50)
    made = execute(f"DFMA{direction} R0, R2, -R4, -R6", R2_64=a, R4_64=b, R6_64=c)
    terms = [Fraction(x) * -Fraction(y) - Fraction(z) for x, y, z in zip(a, b, c, strict=True)]
    expected = [exact(each, direction[1:]) for each in terms]
    assert pair(made, 0).view(np.float64).tolist() == expected
    product = execute(f"DMUL{direction} R0, R2, R4", R2_64=a, R4_64=b)
    expected = [exact(Fraction(x) * Fraction(y), direction[1:]) for x, y in zip(a, b, strict=True)]
    assert pair(product, 0).view(np.float64).tolist() == expected


def test_fused_products_of_float32() -> None:
    # The sum lies just below the middle of two float32, by what float64 cannot hold: rounded to
    # float64 first it would be the middle itself, and go up to the even one.
    a = np.random.default_rng(2).standard_normal(LANES).astype(np.float32)
    b, c = 2.0**-24 / a, np.float32(1) + np.zeros(LANES, np.float32)
    a[0], b[0], c[0] = 1 + 2.0**-23, 2.0**-24 * (1 - 2.0**-23), 1 + 2.0**-23
    a[1:5], b[1:5], c[1:5] = -a[0], b[0], [-c[0], 0.0, 2.0**-40, 2.0**100]
    found = execute("FFMA R0, R1, R2, R3", R1=a, R2=b, R3=c).R[0].view(np.float32)
    for x, y, z, value in zip(a, b, c, found, strict=True):
        whole = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        around = [value, *(np.nextafter(value, np.float32(end)) for end in (-np.inf, np.inf))]
        errors = [abs(Fraction(float(each)) - whole) for each in around]
        assert errors[0] == min(errors)
        if errors.count(errors[0]) > 1:  # a tie goes to the even one
            assert not int(value.view(np.uint32)) & 1
    twice = (a.astype(np.float64) * b + c).astype(np.float32)
    assert twice[0] != found[0]


def test_packing_to_16_bits() -> None:
    values = torch.cat(
        [torch.randn(17) * 100, torch.tensor([0.0, -0.0, 65520.0, 1e-8, 3e38, 1e-40])]
    )
    x = torch.cat([values, 1 + torch.arange(9) * 2.0**-9]).numpy()  # ties of bfloat16
    for name, dtype in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        made = execute(f"F2FP.{name}.F32.PACK_AB R0, R1, R2", R1=x, R2=x[::-1].copy())
        bits = torch.from_numpy(x).to(dtype).view(torch.int16).numpy().view(np.uint16)
        assert (made.R[0] >> 16).tolist() == bits.tolist()
        assert (made.R[0] & 0xFFFF).tolist() == bits[::-1].tolist()


def test_the_larger_of_16_bit_pairs() -> None:
    a, b, c = (torch.randn(2 * LANES).half() for _ in range(3))
    a[0] = b[1] = c[2] = torch.nan
    a[5], b[5], c[5] = torch.nan, torch.nan, -3.0
    words_of = [x.numpy().view(np.uint32) for x in (a, b, c)]
    made = execute("VHMNMX R0, R1, R2, R3, !PT", R1=words_of[0], R2=words_of[1], R3=words_of[2])
    expected = a.fmax(b).fmax(c)  # a NaN loses against a number, as fmax has it
    assert made.R[0].view(np.float16).tolist() == expected.tolist()


def test_integers_to_float32_upwards() -> None:
    x = np.array([WORD - 1, 1 << 24, (1 << 24) + 1, 0, 7, 0x80000001] * 6, np.uint32)[:LANES]
    found = execute("I2F.U32.RP R0, R1", R1=x).R[0].view(np.float32)
    for value, result in zip(x.tolist(), found.tolist(), strict=True):
        below = float(np.nextafter(np.float32(result), np.float32(-1)))
        assert below < value <= result


def test_a_float_written_in_the_code_has_its_bits() -> None:
    # The listing prints "-QNAN"; which NaN it is, the upper half of a float64's, the encoding says.
    made = execute("FSEL R0, R1, -QNAN , !PT", 0xFFF8000001007808, R1=words(1))
    assert made.R[0].tolist() == [0xFFF80000] * LANES


def test_what_is_not_known_is_named() -> None:
    for line, why in (
        ("FROB R0, R1", "the opcode FROB"),
        ("FADD.NEAR R0, R1, R2", "the modifier .NEAR"),
        ("LOP3.LUT R0, R1, R2, R3, 0xc0, P3", "a predicate of its own"),
        ("S2R R0, SR_CLOCKLO", "the special register SR_CLOCKLO"),
        ("BAR.RED.POPC.DEFER_BLOCKING 0x0", "the modifier .POPC"),
        ("LDC R0, c[0x3][0x10]", "the constant bank 3"),
    ):
        with pytest.raises(UnknownInstruction, match=f"does not know {why} of `{line[:4]}"):
            execute(line)
    with pytest.raises(UnknownInstruction, match="the operand R1.. of"):
        execute("MOV R0, R1??")
    # Behind a branch that nobody takes it is no error.
    made = machine(["BRA 0x20", "FROB R0, R1", "EXIT"])
    made.run()
    assert made.counts.tolist() == [1, 0, 1]


def test_accesses_are_checked() -> None:
    room = np.zeros(64, np.uint32)
    address = np.full(LANES, room.ctypes.data, np.uint64) + np.arange(LANES, dtype=np.uint64) * 8
    made = machine(["LDG.E.64 R0, desc[UR4][R2.64]", "STG.E desc[UR4][R2.64+0x4], R0", "EXIT"])
    made.R[2] = address.astype(np.uint32)
    made.R[3] = (address >> np.uint64(32)).astype(np.uint32)
    room[:] = np.arange(64)
    made.memory.regions.append(Region(room.ctypes.data, 256))
    made.run()
    assert room.tolist() == [k // 2 * 2 for k in range(64)]
    for line, why in (
        ("LDG.E R0, desc[UR4][R2.64+0x8]", "outside every tensor"),
        ("LDG.E R0, desc[UR4][R2.64+0x2]", "no multiple of 4"),
    ):
        made = machine([line, "EXIT"])
        made.R[2] = address.astype(np.uint32)
        made.R[3] = (address >> np.uint64(32)).astype(np.uint32)
        made.memory.regions.append(Region(room.ctypes.data, 256))
        with pytest.raises(Fault, match=f"{why}.*LDG.E"):
            made.run()
