"""Turning templates into prose: the small grammar that every generator in this folder writes in.

A template is a sentence with alternatives in round brackets, "(calm|quiet) sea", which may be nested or empty
("(|very )cold"), and fields in braces, "{k} climbed the {steps} steps". All text is ASCII: the tokenizer's
expression is then the same with Python's re as with a Unicode engine.
"""
import re

_ALT = re.compile(r"\(([^()|]*(?:\|[^()|]*)+)\)")
_START = re.compile(r"(^\"?|[.!?] \"?|\n\"?|[,:] \")([a-z])")

SMALL = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
"twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"]


def fill(r, template, fields=None):
    """One sentence from a template: alternatives chosen innermost first, then fields put in (so a field's own
    brackets are never taken for alternatives)."""
    while "|" in template:
        new = _ALT.sub(lambda m: r.choice(m.group(1).split("|")), template)
        if new == template:
            raise ValueError(f"unbalanced alternatives: {template!r}")
        template = new
    return template.format_map(fields) if fields is not None else template


_AN = re.compile(r"\b([Aa]) (?=[aeio][a-z]|MX)")


def capitalize(text):
    """A capital at the start, after each full stop and line end, and after an opening quotation mark. Not
    after a closing one, where "said Marta" may follow: Teller begins each of its sentences with a capital
    instead. And "an" where a field began with a vowel."""
    return _START.sub(lambda m: m.group(1) + m.group(2).upper(), _AN.sub(r"\1n ", text))


def word(n):
    """A count as prose writes it: words up to twenty, figures above."""
    return SMALL[n] if n <= 20 else str(n)


def plural(n, one, many=None):
    return f"{word(n)} {one if n == 1 else (many or one + 's')}"


def listing(items):
    """a, b and c"""
    items = list(items)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def article(noun):
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


class Teller:
    """Collects sentences into paragraphs, with one set of fields for the whole document."""

    def __init__(self, r, fields):
        self.r, self.fields, self.pars = r, dict(fields), [[]]

    def __call__(self, *templates):
        """Adds one sentence, or a few, from one of the templates."""
        self.pars[-1].append(capitalize(fill(self.r, self.r.choice(templates), self.fields)))

    def maybe(self, chance, *templates):
        if self.r.random() < chance:
            self(*templates)

    def par(self):
        if self.pars[-1]:
            self.pars.append([])

    def text(self):
        return "\n\n".join(" ".join(p) for p in self.pars if p)
