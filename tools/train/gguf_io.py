"""Reading and writing GGUF v3 (little-endian), as much as this folder needs. Layout: the public GGUF
specification."""
import struct

import numpy as np

U32, I32, F32, BOOL, STR, ARR, U64 = 4, 5, 6, 7, 8, 9, 10
_SCALAR = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TYPES = {  # GGUF number, weights in a block, bytes of a block
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_K": (12, 256, 144),
    "Q6_K": (14, 256, 210),
}
NAMES = {number: name for name, (number, _, _) in TYPES.items()}
ALIGN = 32


def _string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def _value(t, v):
    if t == STR:
        return _string(v)
    if t == ARR:
        return struct.pack("<IQ", v[0], len(v[1])) + b"".join(_value(v[0], x) for x in v[1])
    return struct.pack("<" + _SCALAR[t], v)


def write(path, metadata, tensors):
    """metadata: {key: (type, value)}, arrays as (element type, list). tensors: [(name, shape as numpy has it,
    type name, bytes)]; GGUF lists the fastest dimension first, so shapes are reversed."""
    info, offset = b"", 0
    for name, shape, kind, data in tensors:
        number, block, size = TYPES[kind]
        if len(data) != int(np.prod(shape)) // block * size or shape[-1] % block:
            raise ValueError(f"{name}: {len(data)} bytes do not fit shape {shape} of {kind}")
        info += (
            _string(name)
            + struct.pack("<I", len(shape))
            + b"".join(struct.pack("<Q", d) for d in reversed(shape))
            + struct.pack("<IQ", number, offset)
        )
        offset += -(-len(data) // ALIGN) * ALIGN
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += (
        b"".join(_string(k) + struct.pack("<I", t) + _value(t, v) for k, (t, v) in metadata.items()) + info
    )
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % ALIGN))
        for _, _, _, data in tensors:
            f.write(data + b"\0" * (-len(data) % ALIGN))


class Reader:
    """metadata: {key: (type, value)}; tensors: {name: (shape as numpy has it, GGUF type number, bytes)}."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        self.at = 0
        magic, version, ntensors, nkv = self._take("<4sIQQ")
        if magic != b"GGUF" or version != 3:
            raise ValueError(f"{path}: not a GGUF v3 file")
        self.metadata = {}
        for _ in range(nkv):
            key = self._str()
            (t,) = self._take("<I")
            self.metadata[key] = (t, self._val(t))
        infos = []
        for _ in range(ntensors):
            name = self._str()
            (n,) = self._take("<I")
            dims = self._take(f"<{n}Q")
            kind, offset = self._take("<IQ")
            infos.append((name, dims[::-1], kind, offset))
        align = self.get("general.alignment", ALIGN)
        base = -(-self.at // align) * align
        sizes = {0: (1, 4), 1: (1, 2), 12: (256, 144), 14: (256, 210)}
        self.tensors = {}
        for name, shape, kind, offset in infos:
            if kind not in sizes:
                raise ValueError(
                    f"{path}: tensor {name} has GGUF type {kind}, which this reader does not know"
                )
            block, size = sizes[kind]
            count = int(np.prod(shape)) // block * size
            self.tensors[name] = (shape, kind, self.data[base + offset : base + offset + count])
            if len(self.tensors[name][2]) != count:
                raise ValueError(f"{path}: tensor {name} lies past the end of the file")

    def get(self, key, default=None):
        return self.metadata[key][1] if key in self.metadata else default

    def _take(self, fmt):
        v = struct.unpack_from(fmt, self.data, self.at)
        self.at += struct.calcsize(fmt)
        return v

    def _str(self):
        (n,) = self._take("<Q")
        self.at += n
        return self.data[self.at - n : self.at].decode()

    def _val(self, t):
        if t == STR:
            return self._str()
        if t == ARR:
            et, n = self._take("<IQ")
            return (
                et,
                [self._str() for _ in range(n)] if et == STR else list(self._take(f"<{n}{_SCALAR[et]}")),
            )
        return self._take("<" + _SCALAR[t])[0]
