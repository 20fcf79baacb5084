"""A second reader of ring files, written from docs/format.md alone.

It shares no code with the library: `struct`, `zstandard` and `msgpack` read the bytes. What it and
the library disagree on is an error in one of the two, or in the document.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

_TABLE = []
for _i in range(256):
    _c = _i
    for _ in range(8):
        _c = _c >> 1 ^ (0x82F63B78 if _c & 1 else 0)
    _TABLE.append(_c)


def crc32c(data: bytes, crc: int = 0) -> int:
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


STATES = ("pending", "delivered", "rejected", "lost")


@dataclass(frozen=True)
class RingRecord:
    seq: int
    wall_ns: int
    mono_ns: int
    id: bytes
    boot: int
    kind: int
    flags: int
    state: str
    payload: bytes


class RingFile:
    """A ring file in memory."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        header = next(h for h in (self.data[0:68], self.data[4096:4164]) if self._is_header(h))
        version, features = struct.unpack_from("<II", header, 8)
        assert (version, features) == (1, 0)
        self.uuid = header[16:32]
        (
            self.stream,
            self.segment_size,
            self.segment_count,
            self.dictionary_capacity,
            smallest,
        ) = struct.unpack_from("<IIIII", header, 32)
        self.record_count_max = self.segment_size // smallest // 16 * 16
        self.map_offset = 4096 + self.dictionary_capacity
        self.data_offset = self.map_offset + -(-self.record_count_max // 16 * 8 // 4096) * 4096
        self.data_size = self.segment_size - self.data_offset
        ledgers = []
        for offset in (8192, 12288):
            block = self.data[offset : offset + 132]
            if block[:8] == b"VEVLEDG\n" and self._checks(block, 128):
                ledgers.append(struct.unpack_from("<7Q", block, 8))
        _, self.floor, self.floor_seq, self.delivered, self.rejected, self.evicted, self.lost = max(
            ledgers
        )

    @staticmethod
    def _is_header(block: bytes) -> bool:
        return block[:8] == b"VEVRING\n" and crc32c(block[:64]) == _u32(block, 64)

    def _checks(self, block: bytes, size: int) -> bool:
        return crc32c(block[:size], crc32c(self.uuid)) == _u32(block, size)

    def laps(self) -> list[tuple[int, int, int]]:
        """(generation, first sequence number, segment), oldest first."""
        found = []
        for segment in range(self.segment_count):
            at = 65536 + segment * self.segment_size
            head = self.data[at : at + 128]
            if head[:8] != b"VEVSEGM\n" or crc32c(head[:80]) != _u32(head, 80):
                continue
            if head[48:64] != self.uuid:
                continue
            generation, base_seq = struct.unpack_from("<QQ", head, 8)
            if generation >= self.floor:
                found.append((generation, base_seq, segment))
        return sorted(found)

    def past(self, segment: int) -> list[tuple[int, int, int]]:
        """The laps that the head in `segment` names, as laps() has them, newest first."""
        start = 65536 + segment * self.segment_size
        block = self.data[start : start + 4096]
        count, crc = struct.unpack_from("<II", block, 264)
        laps = block[272 : 272 + 40 * count]
        seed = self._seed(*struct.unpack_from("<Q24xQ", block, 8))
        if block[256:264] != b"VEVPAST\n" or crc32c(block[256:268] + laps, seed) != crc:
            return []
        named = []
        for generation, base_seq, salt, records, end, _, _, place in struct.iter_unpack(
            "<QQQIIIHH", laps
        ):
            at = 65536 + place * self.segment_size
            if generation >= self.floor:
                assert struct.unpack_from("<Q", self.data, at + 40) == (salt,)
                assert struct.unpack_from("<QII", self.data, at + 136) == (generation, records, end)
                named.append((generation, base_seq, place))
        return named

    def kinds(self, segment: int) -> tuple[set[int], bool]:
        """The kinds of record that the head in `segment` names, and whether these are all."""
        start = 65536 + segment * self.segment_size
        block = self.data[start : start + 4096]
        named, crc = struct.unpack_from("<II", block, 200)
        seed = self._seed(*struct.unpack_from("<Q24xQ", block, 8))
        assert crc32c(b"KND " + block[200:204], seed) == crc
        return {kind for kind in range(31) if named >> kind & 1}, bool(named >> 31)

    def _seed(self, generation: int, salt: int) -> int:
        return crc32c(struct.pack("<QQ", generation, salt), crc32c(self.uuid))

    def records(self) -> Iterator[RingRecord]:
        for lap in self.laps():
            yield from self.lap(*lap)

    def lap(self, generation: int, base_seq: int, segment: int) -> Iterator[RingRecord]:
        start = 65536 + segment * self.segment_size
        head = self.data[start : start + 128]
        size, crc = struct.unpack_from("<II", head, 32)
        dictionary = self.data[start + 4096 : start + 4096 + size]
        assert crc32c(dictionary) == crc
        decompressors = {
            1: zstandard.ZstdDecompressor(
                dict_data=zstandard.ZstdCompressionDict(dictionary),
                format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            ),
            2: zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS),
        }
        seed = self._seed(generation, _u64(head, 40))
        data_at = start + self.data_offset
        offset = expected = 0
        while offset <= self.data_size - 8:
            at = data_at + offset
            record = self._record(at, seed, base_seq, self.data_size - offset)
            if record is None or record[1] - base_seq < expected:
                if self._is_end(at, seed):
                    return
                offset += 8
                continue
            length, seq, wall_ns, mono_ns, id_, boot, raw_size, codec, kind, flags, stored = record
            payload = (
                # The one call that knows the format in every version of zstandard.
                decompressors[codec].decompressobj().decompress(stored) if codec else stored
            )
            assert len(payload) == raw_size
            index = seq - base_seq
            yield RingRecord(
                seq,
                wall_ns,
                mono_ns,
                id_,
                boot,
                kind,
                flags,
                self._state(start, seed, index),
                payload,
            )
            expected = index + 1
            offset += length

    def _record(self, at: int, seed: int, base_seq: int, room: int):
        low, crc = struct.unpack_from("<II", self.data, at)
        length = (low & 0x0FFFFFFF) * 8
        if low >> 30 != 2 or not 40 <= length <= room:
            return None
        wall_ns, mono_ns, index, boot, raw_size, kind, codec, flags, zero = struct.unpack_from(
            "<qQIIIBBBB", self.data, at + 8
        )
        padding = raw_size >> 28
        payload_at = at + (56 if flags & 1 else 40)
        end = at + length - padding
        if zero or padding > 7 or end < payload_at:
            return None
        covered = struct.pack("<QI", at, length) + self.data[at + 8 : end]
        if crc32c(covered, seed) != crc or index >= self.record_count_max:
            return None
        seq = base_seq + index
        id_ = self.data[at + 40 : at + 56] if flags & 1 else self._id(seq, wall_ns, mono_ns, boot)
        stored = self.data[payload_at:end]
        raw_size &= 0x0FFFFFFF
        return length, seq, wall_ns, mono_ns, id_, boot, raw_size, codec, kind, flags, stored

    def _id(self, seq: int, wall_ns: int, mono_ns: int, boot: int) -> bytes:
        low, high = struct.unpack("<QQ", self.uuid)
        m = mono_ns ^ boot << 32
        first = _mix(_mix(_mix(seq + low) ^ wall_ns) ^ m)
        second = _mix(_mix(_mix(seq + high) ^ m) ^ wall_ns)
        id_ = bytearray(struct.pack("<QQ", first, second))
        id_[6] = id_[6] & 0x0F | 0x40
        id_[8] = id_[8] & 0x3F | 0x80
        return bytes(id_)

    def _is_end(self, at: int, seed: int) -> bool:
        low, crc = struct.unpack_from("<II", self.data, at)
        if low >> 30 != 3:
            return False
        return crc32c(b"END " + struct.pack("<IQ", low & 0x3FFFFFFF, at), seed) == crc

    def _state(self, segment_at: int, seed: int, index: int) -> str:
        at = segment_at + self.map_offset + index // 16 * 8
        states, check = struct.unpack_from("<II", self.data, at)
        if crc32c(struct.pack("<II", index // 16, states), seed) != check:
            return "pending"
        return STATES[states >> (index % 16 * 2) & 3]


def _mix(x: int) -> int:
    mask = 2**64 - 1
    x &= mask
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
    return x ^ x >> 31


def _u64(block: bytes, offset: int) -> int:
    value: int = struct.unpack_from("<Q", block, offset)[0]
    return value


def _u32(block: bytes, offset: int) -> int:
    value: int = struct.unpack_from("<I", block, offset)[0]
    return value
