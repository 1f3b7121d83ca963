"""Byte-level BPE: training, encoding, decoding, in plain Python.

The vocabulary is the kind that GGUF calls tokenizer.ggml.model = "gpt2", with pre-tokenizer "qwen2": words
with their leading space, single digits, runs of punctuation, runs of white space. The expression below is
that pre-tokenizer for ASCII text, which is all that the generators write; encode() refuses anything else
rather than split it wrongly. Ids: 256 byte symbols in byte order, then merges in rank order, then the special
tokens.
"""
import collections
import heapq
import json
import re

# Placeholders of the special tokens in generated text. Control characters, so that no text can contain them.
EOT, IM_START, IM_END = "\x01", "\x02", "\x03"
SPECIAL = {EOT: "<|endoftext|>", IM_START: "<|im_start|>", IM_END: "<|im_end|>"}

# Qwen2's published expression with \p{L} = [A-Za-z] and \p{N} = [0-9], the ASCII part of those classes.
PRE = re.compile(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]"
    r"| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT = re.compile("([\x01\x02\x03])")


def byte_symbols():
    """GPT-2's printable stand-in for each byte: itself where it prints, else a character from U+0100 on."""
    keep = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    out, extra = {}, 0
    for b in range(256):
        if b in keep:
            out[b] = chr(b)
        else:
            out[b], extra = chr(256 + extra), extra + 1
    return out


def pieces(text):
    if not text.isascii():
        raise ValueError("this tokenizer's expression covers ASCII only")
    return PRE.findall(text)


class Tokenizer:
    def __init__(self, merges):
        """merges: pairs of ids in rank order; the merge of rank i makes id 256 + i."""
        self.merges = [tuple(m) for m in merges]
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self.bytes_of = [bytes([b]) for b in range(256)]
        for a, b in self.merges:
            self.bytes_of.append(self.bytes_of[a] + self.bytes_of[b])
        self.special = {mark: len(self.bytes_of) + i for i, mark in enumerate(SPECIAL)}
        self.size = len(self.bytes_of) + len(SPECIAL)
        self.cache = {}

    def encode_piece(self, piece):
        ids = self.cache.get(piece)
        if ids is None:
            ids = list(piece.encode())
            while len(ids) > 1:
                best = min(range(len(ids) - 1), key=lambda i: self.rank.get((ids[i], ids[i + 1]), 1 << 30))
                r = self.rank.get((ids[best], ids[best + 1]))
                if r is None:
                    break
                ids[best : best + 2] = [256 + r]
            self.cache[piece] = ids
        return ids

    def encode(self, text):
        """Ids of a text; the placeholders become their special tokens. Nothing is added."""
        out = []
        for part in _SPLIT.split(text):
            if part in self.special:
                out.append(self.special[part])
            else:
                for p in pieces(part):
                    out += self.encode_piece(p)
        return out

    def decode(self, ids):
        names = {i: SPECIAL[m].encode() for m, i in self.special.items()}
        return b"".join(names[i] if i in names else self.bytes_of[i] for i in ids).decode("utf-8", "replace")

    def gguf(self):
        """tokens, token types (1 normal, 3 control) and merges, as the GGUF metadata arrays hold them."""
        sym = byte_symbols()
        text = ["".join(sym[b] for b in t) for t in self.bytes_of]
        return (
            text + list(SPECIAL.values()),
            [1] * len(text) + [3] * len(SPECIAL),
            [f"{text[a]} {text[b]}" for a, b in self.merges],
        )

    def save(self, path):
        with open(path, "w") as f:
            json.dump({"merges": self.merges}, f)

    @staticmethod
    def load(path):
        with open(path) as f:
            return Tokenizer(json.load(f)["merges"])


def train(words, size):
    """A vocabulary of `size` entries, special tokens included, from {piece: count}. Ties go to the smaller
    pair, so that the result depends on the counts alone."""
    text = [list(w.encode()) for w in words]
    count = list(words.values())
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, t in enumerate(text):
        for p in zip(t, t[1:]):
            pairs[p] += count[i]
            where[p].add(i)
    heap = [(-n, p) for p, n in pairs.items()]
    heapq.heapify(heap)
    merges = []
    while len(merges) < size - 256 - len(SPECIAL) and heap:
        n, p = heapq.heappop(heap)
        if pairs.get(p, 0) != -n:  # an entry of an older count: put the present one back
            if pairs.get(p, 0) > 0:
                heapq.heappush(heap, (-pairs[p], p))
            continue
        new = 256 + len(merges)
        merges.append(p)
        touched = set()
        for i in where.pop(p):
            t, c, out, j = text[i], count[i], [], 0
            for q in zip(t, t[1:]):
                pairs[q] -= c
                touched.add(q)
            while j < len(t):
                if j + 1 < len(t) and (t[j], t[j + 1]) == p:
                    out.append(new)
                    j += 2
                else:
                    out.append(t[j])
                    j += 1
            text[i] = out
            for q in zip(out, out[1:]):
                pairs[q] += c
                where[q].add(i)
                touched.add(q)
        for q in touched:
            if pairs[q] > 0:
                heapq.heappush(heap, (-pairs[q], q))
            else:
                del pairs[q]
    return Tokenizer(merges)
