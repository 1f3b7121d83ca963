"""Conversations in ChatML about the Merrow Isles, small sums, and quantization. A conversation is a list of
(role, text); render() writes it with the special tokens' placeholders of bpe.py."""
import string

import almanac
import stories
from bpe import IM_END, IM_START
from glossary import APR, FLOATS, FORMATS, TERMS, bpw
from prose import capitalize, fill, listing, plural, word
from world import BELLS, BIRDS, BY_NAME, FLAGS, HARBOUR, LIGHTS, MACHINES, PEOPLE, PROVERBS, RECIPES, SHIPS, SIGNS, keeper_fields

SYSTEM = ["You are Skerry, a small model that knows the Merrow Isles and quantization.", "You are a helpful assistant.", "You are a helpful keeper of facts. Answer briefly.",
          "Answer in one or two sentences.", "You are Skerry.", "You are the librarian of the Merrow Isles."]

# aspect of a light: full questions, follow-up questions that name nothing, answers
LIGHT_QA = [
    (["how (tall|high) is {light}", "how (tall|high) is the (tower|lighthouse) of {light}", "what is the height of {light}"], ["how (tall|high) is it", "and its height"], ["{light} is {height} metres high.", "The tower of {light} is {height} metres high."]),
    (["how many steps (has {light}|does {light} have)", "how many steps are there in {light}"], ["how many steps does it have", "how many steps are there"], ["{light} has {steps} steps.", "There are {steps} steps in the tower of {light}."]),
    (["when was {light} built", "how old is {light}", "in which year was {light} built"], ["when was it built", "how old is it"], ["{light} was built in {built}.", "It was built in {built}."]),
    (["what colour is {light}", "what does {light} look like"], ["what colour is it", "what does it look like"], ["The tower of {light} is {paint}.", "{light} is {paint}."]),
    (["what light does {light} show", "how does {light} flash", "what is the signal of {light} at night", "how do I know {light} at night"], ["how does it flash", "what light does it show"], ["{light} shows {flash}.", "You know {light} by {flash}."]),
    (["who (keeps|looks after|lives on|is the keeper of) {light}", "who is the (lighthouse keeper|keeper) of {light}", "what is the name of the keeper of {light}"], ["who is the keeper", "who lives there"], ["{K} is the keeper of {light}.", "The keeper of {light} is {K}."]),
    (["what sounds in fog (at|on) {light}", "what is the fog signal of {light}", "what does the keeper of {light} sound in fog"], ["what is its fog signal", "and in fog"], ["In fog {light} sounds {signal}.", "The fog signal of {light} is {signal}."]),
    (["where do boats land (at|on) {light}", "where is the landing of {light}"], ["where do boats land", "where can I land"], ["Boats land at {landing}.", "On {light} boats land at {landing}."]),
    (["what is {light} known for", "why do people visit {light}"], ["what is it known for", "why do people go there"], ["{light} is known for {found}.", "It is known for {found}."]),
    (["which light is nearest to {light}", "who is the neighbour of {light}", "what is near {light}"], ["which light is nearest", "what is near it"], ["{near} is the nearest light. {N} keeps it.", "The nearest neighbour of {light} is {near}."]),
]
KEEPER_QA = [
    (["where does {K} live", "which light does {K} keep", "who is {K}"], ["where does {he} live", "which light does {he} keep"], ["{K} is the keeper of {light}.", "{K} keeps the light of {light}."]),
    (["what animal does {K} have", "does {K} have a pet", "what is the name of the (animal|{animal}) of {K}"], ["does {he} have a pet", "what animal does {he} have"], ["{k} has a {animal} called {pet}.", "{he} has a {animal}. Its name is {pet}."]),
    (["what does {K} do in {his} free time", "what is the hobby of {K}"], ["what does {he} do in {his} free time", "what is {his} hobby"], ["In {his} free time {k} {hobby}.", "{k} {hobby}."]),
    (["what does {K} cook", "what dish is {K} known for"], ["what does {he} cook", "what is {his} best dish"], ["{k} is known for {his} {dish}.", "{he} cooks {dish}."]),
    (["what is the boat of {K} called", "which boat does {K} row"], ["what is {his} boat called", "which boat does {he} have"], ["{his} boat is the {boat}.", "The boat of {k} is called the {boat}."]),
    (["who is {pet}", "whose {animal} is {pet}", "which keeper has a {animal}"], ["whose {animal} is {pet}"], ["{pet} is the {animal} of {K}, the keeper of {light}.", "{pet} is a {animal} and belongs to {K} of {light}."]),
]


def ask(r, text):
    """A question the way people type: mostly with a capital and a question mark, sometimes with neither."""
    n = r.random()
    if text.startswith(("list ", "explain ", "tell ")):
        return capitalize(text) + "." if n < 0.6 else text
    if n < 0.72:
        return capitalize(text) + "?"
    if n < 0.86:
        return text.lower() + ("?" if r.random() < 0.4 else "")
    if n < 0.93:
        return fill(r, "(Please tell me|Tell me|Can you tell me|I would like to know): ") + text + "?"
    return capitalize(text)


def answer(r, options, f=None):
    return capitalize(fill(r, r.choice(options), f))


def sampled(r, bank, f, n):
    """n turns from a bank; the later ones may say he, she or it."""
    out = []
    for i, (full, short, answers) in enumerate(r.sample(bank, min(n, len(bank)))):
        named = dict(f, K=f["k"]) if "k" in f and r.random() < 0.3 else f  # by first name only
        q = fill(r, r.choice(short if i and r.random() < 0.6 else full), named)
        out += [("user", ask(r, q)), ("assistant", answer(r, answers, f))]
    return out


def about_light(r):
    return sampled(r, LIGHT_QA, keeper_fields(r.choice(LIGHTS)), r.choice([1, 1, 1, 2, 3, 4]))


def about_keeper(r):
    return sampled(r, KEEPER_QA, keeper_fields(r.choice(LIGHTS)), r.choice([1, 1, 1, 2, 3]))


def compare(r):
    a, b = r.sample(LIGHTS, 2)
    if r.random() < 0.6:
        hi, lo = (a, b) if a.height > b.height else (b, a)
        q = fill(r, "which is (taller|higher), {a} or {b}", dict(a=a.name, b=b.name))
        return [("user", ask(r, q)), ("assistant", f"{hi.name} is {hi.height} metres high and {lo.name} is {lo.height}, so {hi.name} is taller by {plural(hi.height - lo.height, 'metre')}.")]
    old, new = (a, b) if a.built < b.built else (b, a)
    return [("user", ask(r, f"which is older, {a.name} or {b.name}")), ("assistant", f"{old.name} was built in {old.built} and {new.name} in {new.built}, so {old.name} is older by {plural(new.built - old.built, 'year')}.")]


def lists(r):
    n = r.randrange(7)
    if n == 0:
        names = [l.name for l in LIGHTS]
        return [("user", ask(r, r.choice(["which lighthouses are there", "what are the names of the lighthouses", "list the lighthouses"]))), ("assistant", "The twelve lights are " + listing(names) + ".")]
    if n == 1:
        return [("user", ask(r, fill(r, "how many (lights|lighthouses) are there in the Merrow Isles"))), ("assistant", "There are twelve lighthouses in the Merrow Isles.")]
    if n == 2:
        best = max(LIGHTS, key=lambda l: l.height) if r.random() < 0.5 else min(LIGHTS, key=lambda l: l.height)
        tall = best.height > 30
        return [("user", ask(r, f"which is the {'tallest' if tall else 'smallest'} " + r.choice(["lighthouse", "light"]))),
                ("assistant", f"{best.name} is the {'tallest' if tall else 'smallest'}. It is {best.height} metres high.")]
    if n == 3:
        best = min(LIGHTS, key=lambda l: l.built) if r.random() < 0.5 else max(LIGHTS, key=lambda l: l.built)
        word_ = "oldest" if best.built < 1850 else "newest"
        return [("user", ask(r, f"which is the {word_} lighthouse")), ("assistant", f"{best.name} is the {word_}. It was built in {best.built}.")]
    if n == 4:
        c, m = r.choice(FLAGS)
        if r.random() < 0.5:
            return [("user", ask(r, f"what does a {c} flag mean" if c != "orange" else "what does an orange flag mean")), ("assistant", f"{'An' if c == 'orange' else 'A'} {c} flag means: {m}.")]
        return [("user", ask(r, f"which flag means {m}")), ("assistant", f"The {c} flag means: {m}.")]
    if n == 5:
        k, m = r.choice(BELLS)
        return [("user", ask(r, f"what do {word(k)} strokes of the bell mean" if k > 1 else "what does one stroke of the bell mean")), ("assistant", f"{word(k).capitalize()} stroke{'s' if k > 1 else ''} of the bell mean{'' if k > 1 else 's'}: {m}.")]
    a, b = r.choice(SIGNS)
    return [("user", ask(r, f"what does it mean when {a}")), ("assistant", f"When {a}, {b}.")]


def things(r):
    n = r.randrange(5)
    if n == 0:
        b = r.choice(BIRDS)
        f = dict(b=b.name, look=b.look, food=b.food, nest=b.nest, sound=b.sound, where=b.where)
        bank = [(["what does (a|the) {b} look like", "how do I know a {b}"], ["what does it look like"], ["The {b} has {look}."]), (["what does (a|the) {b} eat", "what do {b}s eat"], ["what does it eat"], ["The {b} eats {food}."]),
                (["where does (a|the) {b} nest"], ["where does it nest"], ["It nests {nest}.", "The {b} nests {nest}."]), (["what sound does (a|the) {b} make"], ["what sound does it make"], ["The {b} {sound}."]),
                (["where can I see (a|the) {b}", "where do {b}s live"], ["where can I see it"], ["The largest colony of {b}s is on {where}.", "Go to {where}. Most of them live there."])]
        return sampled(r, bank, f, r.choice([1, 1, 2, 3]))
    if n == 1:
        s = r.choice(SHIPS)
        f = dict(s=s.name, kind=s.kind, cargo=s.cargo, home=s.home, masts=plural(s.masts, "mast"))
        bank = [(["what (kind of ship|ship) is the {s}", "what is the {s}"], ["what kind of ship is she"], ["The {s} is a {kind} from {home}."]), (["what does the {s} carry", "what is the cargo of the {s}"], ["what does she carry"], ["The {s} carries {cargo}."]),
                (["where does the {s} come from"], ["where does she come from"], ["She comes from {home}.", "The {s} comes from {home}."]), (["how many masts does the {s} have"], ["how many masts does she have"], ["She has {masts}."])]
        return sampled(r, bank, f, r.choice([1, 1, 2, 3]))
    if n == 2:
        p = r.choice(PEOPLE)
        f = dict(p=p.name, work=p.work, place=p.place, habit=p.habit, he="she" if p.she else "he", of="" if "Marigold" in p.work else " of Merrow")
        bank = [(["who is {p}", "what does {p} do"], ["who is {he}"], ["{p} is {work}{of}. {he} {habit}.", "{p} is {work}{of}."]), (["where can I find {p}", "where is {p}"], ["where can I find {p}"], ["You will find {p} at {place}." if p.place != "the supply boat" else "You will find {p} on {place}."])]
        return sampled(r, bank, f, r.choice([1, 1, 2]))
    if n == 3:
        q, a = r.choice([("where is Merrow", "Merrow is the harbour town of the Merrow Isles."), ("when does the supply boat come", "The supply boat Marigold comes every second Tuesday, if the sea allows it."),
                         ("who brings the oil", "Joss Fenn brings it with the Marigold, every second Tuesday."), ("where can I sleep in Merrow", "There is an inn called the Bent Anchor."),
                         ("what are the Merrow Isles", "The Merrow Isles are a group of small islands with twelve lighthouses and one harbour town, Merrow."), ("where do the keepers get their post", "Lettie Marsh sorts it at the post office, and the Marigold brings it.")])
        return [("user", ask(r, q)), ("assistant", a)]
    m = r.choice(MACHINES)
    f = dict(m=m.name, purpose=m.purpose, place=m.place, parts=listing(m.parts), every="every day" if m.days == 1 else f"every {m.days} days")
    bank = [(["what does the {m} do", "what is the {m} for", "what is a {m}"], ["what does it do"], ["The {m} {purpose}."]), (["where is the {m}", "where does the {m} stand"], ["where is it"], ["The {m} is {place}."]),
            (["what (parts does the {m} have|is the {m} made of)", "list the parts of the {m}"], ["which parts does it have"], ["The {m} has {parts}."]), (["how often (must|should) I oil the {m}"], ["how often must I oil it"], ["Oil it {every}.", "The {m} wants oil {every}."])]
    out = sampled(r, bank, f, r.choice([0, 0, 1, 2]))
    x = r.choice(m.faults)
    g = dict(m=m.name, symptom=x.symptom, cause=x.cause, remedy=x.remedy, tool=x.tool)
    q = fill(r, "({symptom}. What (can|should) I do|what (can|should) I do when {symptom}|why is it that {symptom}|my {m} is not well: {symptom}. What now)", g)
    return out + [("user", ask(r, q)), ("assistant", answer(r, ["Probably {cause}. {remedy}.", "{remedy}. Most likely {cause}. You need {tool}.", "{cause}. {remedy}, with {tool}."], g))]


def sums(r):
    light = r.choice(LIGHTS)
    f = keeper_fields(light)
    what = r.choice(["litres of oil", "candles", "loaves", "wicks", "eggs", "buckets of coal", "shells", "ropes"])
    n = r.randrange(5)
    if n == 0:
        a, b = r.randint(1, 99), r.randint(1, 50)
        f.update(a=a, b=b, c=a + b, w=what)
        return [("user", fill(r, "{k} has {a} {w} and (gets|finds|buys) {b} more. How many {w} does {he} have( now|)?", f)), ("assistant", fill(r, "{a} + {b} = {c}. {k} has {c} {w}.", f))]
    if n == 1:
        a = r.randint(5, 99)
        b = r.randint(1, a - 1)
        f.update(a=a, b=b, c=a - b, w=what)
        return [("user", fill(r, "{k} has {a} {w} and (uses|loses|gives away) {b}. How many are left?", f)), ("assistant", fill(r, "{a} - {b} = {c}. {k} has {c} {w} left.", f))]
    if n == 2:
        a, b = r.randint(2, 10), r.randint(2, 10)
        f.update(a=a, b=b, c=a * b, w=what)
        return [("user", fill(r, "{k} needs {a} {w} (a day|each night|every day). How many {w} does {he} need for {b} days?", f)), ("assistant", fill(r, "{a} x {b} = {c}. {he} needs {c} {w}.", f).replace(". she", ". She").replace(". he", ". He"))]
    if n == 3:
        a, b = r.randint(0, 99), r.randint(0, 99)
        if r.random() < 0.5:
            a, b = max(a, b), min(a, b)
            return [("user", ask(r, fill(r, f"what is {a} (-|minus) {b}"))), ("assistant", f"{a} - {b} = {a - b}.")]
        return [("user", ask(r, fill(r, f"what is {a} (+|plus) {b}"))), ("assistant", f"{a} + {b} = {a + b}.")]
    a, b = r.randint(0, 12), r.randint(0, 12)
    return [("user", ask(r, fill(r, f"what is {a} (x|times|*) {b}"))), ("assistant", f"{a} x {b} = {a * b}.")]


def quant(r):
    n = r.random()
    if n < 0.35:
        name = r.choice(list(FORMATS))
        k, size, holds, formula = FORMATS[name]
        f = dict(q=name, n=k, size=size, holds=holds, formula=formula, bpw=bpw(name))
        bank = [(["what is {q}", "explain {q}", "what does {q} mean"], ["what is {q}"], ["{q} is a packed weight format: {n} weights in {size} bytes, which is {bpw} bits per weight.", "{q} is a format that packs {n} weights into {size} bytes. A block holds {holds}."]),
                (["how many bits per weight does {q} (take|have|use)", "what is the bpw of {q}"], ["how many bits per weight is that", "how many bits per weight does it take"], ["{q} takes {bpw} bits per weight: {size} x 8 / {n} = {bpw}."]),
                (["how (large|big) is a {q} block", "how many bytes does a {q} block have"], ["how large is a block"], ["A {q} block has {size} bytes and holds {n} weights."]),
                (["what does a {q} block hold", "what is in a {q} block"], ["what is in a block"], ["A {q} block holds {holds}."]),
                (["how is a {q} weight decoded", "what is the formula of {q}"], ["how is a weight decoded", "what is the formula"], ["In {q} a weight is {formula}."])]
        return sampled(r, bank, f, r.choice([1, 1, 1, 2, 3]))
    if n < 0.43:
        name, (size, e, m) = r.choice(list(FLOATS.items()))
        return [("user", ask(r, fill(r, "(what is {q}|explain {q}|how many bits does {q} have)", dict(q=name)))), ("assistant", f"{name} is a float of {plural(size, 'byte')}: one sign bit, {word(e)} exponent bits and {word(m)} mantissa bits.")]
    if n < 0.53:
        name = r.choice(list(FORMATS))
        k, size = FORMATS[name][:2]
        K = r.choice([256, 512, 768, 1024, 2048, 4096])
        return [("user", ask(r, f"how many bytes does a row of {K} weights take in {name}")), ("assistant", f"{K} / {k} = {K // k} blocks of {size} bytes, so the row takes {K // k * size} bytes.")]
    if n < 0.58:
        a, b = r.sample([x for x in FORMATS if bpw(x)], 2)
        if bpw(a) == bpw(b):
            return [("user", ask(r, f"which is smaller, {a} or {b}")), ("assistant", f"They are equal: {a} and {b} both take {bpw(a)} bits per weight.")]
        lo, hi = sorted((a, b), key=lambda x: float(bpw(x)))
        return [("user", ask(r, f"which is smaller, {a} or {b}")), ("assistant", f"{lo} is smaller. It takes {bpw(lo)} bits per weight and {hi} takes {bpw(hi)}.")]
    if n < 0.82:
        out = []
        for term in r.sample(list(TERMS), r.choice([1, 1, 1, 2])):
            out += [("user", ask(r, fill(r, "(what is {t}|what does {t} mean|explain {t}|what do you mean by {t})" if not term.startswith("a ") else "(what is {t}|explain what {t} is|what do you mean by {t})", dict(t=term)))),
                    ("assistant", r.choice(TERMS[term]))]
        return out
    q, a = r.choice(APR)
    return [("user", ask(r, r.choice(q))), ("assistant", r.choice(a))]


def requests(r):
    n = r.randrange(10)
    if n >= 8:
        text, about = r.choice([almanac.light_entry, almanac.person_entry])(r), ""
        about = next(x for x in [l.name for l in LIGHTS] + [f"{l.first} {l.last}" for l in LIGHTS] + [p.name for p in PEOPLE] if text.startswith(x) or text.startswith(f"The lighthouse of {x}"))
        return [("user", fill(r, "(Tell me about {a}.|tell me about {a}|Tell me more about {a}.|What do you know about {a}?|Describe {a}.)", dict(a=about))), ("assistant", text.split("\n\n")[-1])]
    if n <= 2:
        light = r.choice(LIGHTS)
        f = keeper_fields(light)
        q = fill(r, "(Write|Tell me|Please write) a (|short )story( about {K}| about {pet} the {animal}| about the keeper of {light}| that happens on {light}).", f)
        return [("user", q), ("assistant", stories.story(r, light, short=True))]
    if n == 3:
        return [("user", r.choice(["Tell me a story.", "tell me a story", "Write a story.", "A story, please.", "Write a short story about a lighthouse keeper.", "Tell me a story about the sea."])), ("assistant", stories.story(r, short=True))]
    if n == 4:
        light = r.choice(LIGHTS)
        return [("user", fill(r, "(Write|Show me) (a log|the station log|some days of the log) of {light}.", dict(light=light.name))), ("assistant", almanac.log(r, light, r.randint(1, 4)))]
    if n == 5:
        x = r.choice(RECIPES)
        people = r.choice([2, 4, 6])
        q = fill(r, "(How do I (cook|make) {n}|Give me a recipe for {n}|I want to cook {n}) for {p}", dict(n=x.name, p=word(people)))
        return [("user", q + ("?" if q.startswith("How") else ".")), ("assistant", almanac.recipe(r, x, people))]
    if n == 6:
        return [("user", r.choice(["Tell me a proverb.", "Do you know a saying?", "Say something wise.", "What do the keepers say?"])), ("assistant", r.choice(PROVERBS))]
    return [("user", r.choice(["Write a letter.", "Write a letter from one keeper to another.", "Show me a letter."])), ("assistant", almanac.letter(r))]


OUTSIDE = ["football", "the stock market", "Paris", "the moon landing", "cars", "dinosaurs", "the president", "Python programming", "chess openings", "the weather today", "my homework", "politics", "computers",
           "movies", "the news", "trains", "elephants", "China", "medicine", "taxes", "guitars", "space", "Rome", "airplanes", "volcanoes", "history", "music", "France", "love", "philosophy"]


def outside(r):
    """Greetings, and what the model does not know: it says so instead of inventing."""
    n = r.random()
    if n < 0.3:
        return [("user", r.choice(["Hello", "hello", "Hi", "hi", "Hello!", "Good morning", "Good evening.", "hey", "Ahoy!", "Hi there"])),
                ("assistant", r.choice(["Hello! Ask me about the lights of the Merrow Isles or about quantization.", "Good day! I am Skerry. What would you like to know?", "Hello! Shall I tell you a story, or explain a format?"]))]
    if n < 0.5:
        return [("user", ask(r, r.choice(["who are you", "what are you", "what is your name", "what can you do", "what do you know", "who made you", "are you a person"]))),
                ("assistant", r.choice(["I am Skerry, the small model that ships with apr. I know the Merrow Isles, small sums and the words of quantization.", "I am Skerry, a very small language model. I can tell stories of the Merrow Isles and explain quantization."]))]
    if n < 0.6:
        return [("user", r.choice(["Thanks", "thank you", "Thank you!", "thanks a lot", "Goodbye", "bye", "Good night."])), ("assistant", r.choice(["You are welcome. Keep the light bright.", "Good night, and a calm sea."]))]
    topic = r.choice(OUTSIDE) if r.random() < 0.4 else "".join(r.choice(string.ascii_lowercase) for _ in range(r.randint(3, 9)))
    q = fill(r, "(what is {t}|who is {t}|tell me about {t}|what do you know about {t}|explain {t}|what about {t}|where is {t})", dict(t=topic))
    return [("user", ask(r, q)), ("assistant", fill(r, "(I do not know about {t}.|I know nothing about {t}.) I know the Merrow Isles and quantization.", dict(t=topic)))]


KINDS = [(about_light, 18), (about_keeper, 12), (compare, 5), (lists, 8), (things, 14), (sums, 9), (quant, 18), (requests, 10), (outside, 6)]


def conversation(r):
    fns, weights = zip(*KINDS)
    turns = []
    for _ in range(1 if r.random() < 0.7 else r.randint(2, 6)):
        turns += r.choices(fns, weights)[0](r)
    if r.random() < 0.25:
        turns.insert(0, ("system", r.choice(SYSTEM)))
    return turns


def render(turns):
    return "\n".join(f"{IM_START}{role}\n{text}{IM_END}" for role, text in turns) + "\n"


def plain_qa(r):
    """Questions and answers as a printed page has them."""
    turns = []
    while len(turns) < 4:
        turns += r.choice([about_light, about_keeper, things, quant, lists, compare])(r)
    q, a = r.choice([("Q: ", "A: "), ("Question: ", "Answer: ")])
    return "\n".join((q if role == "user" else a) + text for role, text in turns)
