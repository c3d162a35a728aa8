"""Damage to bytes and to text: flips, cuts, insertions, numbers that are too large."""

import hashlib
import random
import re
from collections.abc import Callable

MAGIC = b"gencg-checkpoint\n"
WORDS = (
    b"nan", b"inf", b"-1", b"0", b"1e400", b"99999999999999999999", b"2147483648", b"-2147483649",
    b"4294967295", b"null", b"\0", b"\xff\xfe", b"\n", b"\r\n", b"[" * 5000, b"{" * 5000,
    b"A" * 9999, b'"', b"../../../../tmp/x", b"/etc/passwd", b"%s%n", b"\x80\x02.", b"$tensor",
)  # fmt: skip
"""What readers stumble over."""


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes after one to four changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_CHANGES)(data, rng)
    return data


def sealed(data: bytes) -> bytes:
    """A checkpoint with its checksum set right, so that its inside is read."""
    head = len(MAGIC) + 32
    payload = data[head:]
    return MAGIC + hashlib.sha256(payload).digest() + payload


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 30))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _random_byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(1) + data[at + 1 :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 4, 100)) :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((rng.choice(WORDS), rng.randbytes(8))) + data[at:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at, n = rng.randrange(len(data) + 1), rng.choice((4, 80, 1000))
    return data[:at] + data[at : at + n] * rng.choice((2, 50)) + data[at + n :]


def _number(data: bytes, rng: random.Random) -> bytes:
    """Another number in the place of one that is written out."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?", data[:200_000]))
    if not found:
        return _flip(data, rng)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(WORDS) + data[match.end() :]


def _block(data: bytes, rng: random.Random) -> bytes:
    """Four or eight bytes of a binary number set to an extreme."""
    at, n = rng.randrange(len(data) + 1), rng.choice((4, 8))
    extreme = rng.choice(
        (bytes(n), b"\xff" * n, b"\x7f" + b"\xff" * (n - 1), b"\xff" * (n - 1) + b"\x7f")
    )
    return data[:at] + extreme + data[at + n :]


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _flip, _random_byte, _cut, _remove, _insert, _repeat, _number, _block,
)  # fmt: skip
