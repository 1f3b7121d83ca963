"""The training text: documents by number. Document i of a split is the same on every machine.

usage: generate.py [--split train] [--first 0] [--count 10]        print documents
       generate.py --heldout FILE [--bytes 100000]                 write the held-out text
"""
import argparse
import hashlib
import random

import almanac
import chat
import stories

PROSE = [
    (stories.story, 30),
    (stories.titled_story, 4),
    (almanac.log, 9),
    (almanac.letter, 8),
    (almanac.light_entry, 6),
    (almanac.person_entry, 4),
    (almanac.thing_entry, 4),
    (almanac.compare_entry, 3),
    (almanac.manual, 6),
    (almanac.recipe, 4),
    (almanac.terms_article, 8),
    (chat.plain_qa, 5),
]
PROSE_FNS, PROSE_WEIGHTS = zip(*PROSE)
CHAT_SHARE = 0.38  # of the documents that are no bundles
BUNDLE_SHARE = (
    0.12  # several prose documents after one another, as a page of an almanac; teaches long contexts
)
HELDOUT_DOCS = 150


def prose(r):
    return r.choices(PROSE_FNS, PROSE_WEIGHTS)[0](r)


def digest(text):
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def heldout_docs(count=HELDOUT_DOCS):
    """The held-out documents: prose only, since a text file has no special tokens."""
    return [prose(random.Random(f"heldout:{i}")) for i in range(count)]


_held = None


def document(split, i):
    """Document i of a split. No held-out document is ever returned, nor part of a bundle."""
    global _held
    if _held is None:
        _held = {digest(d) for d in heldout_docs()}
    r = random.Random(f"{split}:{i}")

    def one():
        while True:
            d = prose(r)
            if digest(d) not in _held:
                return d

    if r.random() < BUNDLE_SHARE:
        return "\n\n".join(one() for _ in range(r.randint(2, 8))) + "\n"
    if r.random() < CHAT_SHARE:
        return chat.render(chat.conversation(r))
    return one() + "\n"


def heldout_text(limit):
    docs, size = [], 0
    for d in heldout_docs():
        if size + len(d) + 2 > limit:
            break
        docs.append(d)
        size += len(d) + 2
    return "\n\n".join(docs) + "\n"


def main():
    ap = argparse.ArgumentParser(
        description="Print documents of the training text, or write the held-out text."
    )
    ap.add_argument("--split", default="train")
    ap.add_argument("--first", type=int, default=0)
    ap.add_argument("--count", type=int, default=10)
    ap.add_argument("--heldout", metavar="FILE")
    ap.add_argument("--bytes", type=int, default=100_000)
    a = ap.parse_args()
    if a.heldout:
        text = heldout_text(a.bytes)
        with open(a.heldout, "w") as f:
            f.write(text)
        print(f"{a.heldout}: {len(text)} bytes")
        return
    for i in range(a.first, a.first + a.count):
        print(document(a.split, i), end="\n----\n")


if __name__ == "__main__":
    main()
