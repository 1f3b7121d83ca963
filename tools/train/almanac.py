"""The other prose of the Merrow Isles: encyclopaedia entries, station logs with a real calendar and counted oil,
letters, machine manuals, recipes, and short articles on quantization."""
import datetime

from glossary import APR, FLOATS, FORMATS, TERMS, bpw
from prose import Teller, article, capitalize, fill, listing, plural, word
from world import BELLS, BIRDS, BY_NAME, FLAGS, LIGHTS, MACHINES, PEOPLE, PROVERBS, RECIPES, SHIPS, SIGNS, keeper_fields

MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def light_entry(r):
    light = r.choice(LIGHTS)
    t = Teller(r, keeper_fields(light))
    t("{light} is a lighthouse (in|of) the Merrow Isles.", "{light} is one of the twelve lighthouses of the Merrow Isles.", "The lighthouse of {light} stands (in the Merrow Isles|near {near}).")
    rest = [["The tower is {height} metres high( and has {steps} steps|).", "It has {steps} steps( and is {height} metres high|)."],
            ["It was built in {built}.", "The tower dates from {built}.", "It was first lit in {built}."],
            ["The tower is {paint}.", "By day it is known by its tower, which is {paint}."],
            ["Its light shows {flash}.", "At night it shows {flash}.", "Ships know it by {flash}."],
            ["In fog the keeper sounds {signal}.", "Its fog signal is {signal}."],
            ["The keeper is {K}, who {hobby}.", "Its keeper, {K}, {hobby} and is known for {his} {dish}.", "{K} keeps the light, together with the {animal} {pet}."],
            ["Boats land at {landing}, and the station's own boat is the {boat}.", "The station's boat is the {boat}. It lies at {landing}."],
            ["The island is known for {found}.", "Visitors come for {found}."],
            ["Its nearest neighbour is {near}, where {N} keeps the light."]]
    r.shuffle(rest)
    for options in rest[:r.randint(3, len(rest))]:
        t(*options)
    return ("" if r.random() < 0.5 else light.name + "\n\n") + t.text()


def person_entry(r):
    if r.random() < 0.6:
        light = r.choice(LIGHTS)
        t = Teller(r, keeper_fields(light))
        t("{K} is the keeper of {light}.", "{K} keeps the light of {light}, (with {his} {animal} {pet}|which shows {flash}).")
        for s in r.sample(["In {his} free time {he} {hobby}.", "{his} {animal} is called {pet}.", "{his} boat is the {boat}.", "{he} is known for {his} {dish}.",
                           "{he} climbs {steps} steps every evening.", "{his} nearest neighbour is {N} of {near}.", "In fog {he} sounds {signal}."], r.randint(3, 6)):
            t(s)
        return t.text()
    p = r.choice(PEOPLE)
    t = Teller(r, dict(p=p.name, work=p.work, place=p.place, habit=p.habit, he="she" if p.she else "he"))
    t("{p} is {work} of Merrow." if p.work != "the skipper of the Marigold" else "{p} is {work}.")
    t("You will find {him} at {place}.".replace("{him}", "her" if p.she else "him") if p.place != "the supply boat" else "You will find him on the supply boat.")
    t("{he} {habit}.")
    return t.text()


def thing_entry(r):
    kind = r.randrange(6)
    if kind == 0:
        b = r.choice(BIRDS)
        t = Teller(r, dict(b=b.name, look=b.look, food=b.food, nest=b.nest, sound=b.sound, where=b.where))
        t("The {b} (is a bird of|lives in) the Merrow Isles.", "The {b} is (easy to know|known) by {look}.")
        if "look" not in t.pars[0][0] and b.look not in t.pars[0][0]:
            t("It has {look}.")
        t("It (eats|feeds on) {food} and nests {nest}.")
        t("The {b} {sound}.")
        t("The largest colony is (at|on) {where}.", "Most of them live (at|on) {where}.")
        return t.text()
    if kind == 1:
        s = r.choice(SHIPS)
        t = Teller(r, dict(n=s.name, kind=article(s.kind), cargo=s.cargo, home=s.home, masts=plural(s.masts, "mast")))
        t("The {n} is {kind} from {home}.")
        t("She has {masts} and carries {cargo}.", "She carries {cargo} and has {masts}.")
        return t.text()
    if kind == 2:
        flags = r.sample(FLAGS, r.randint(3, len(FLAGS)))
        return "Flags of the stations\n\n" + " ".join(f"A {c} flag means: {m}." if c != "orange" else f"An orange flag means: {m}." for c, m in flags)
    if kind == 3:
        return "Strokes of the station bell\n\n" + "\n".join(f"{n}: {m}" for n, m in BELLS[:r.randint(3, len(BELLS))])
    if kind == 4:
        signs = r.sample(SIGNS, r.randint(2, 5))
        return "Signs of the weather\n\n" + " ".join(fill(r, "(When|If) {a}, {b}.", dict(a=a, b=b)) for a, b in signs)
    return "Sayings of the keepers\n\n" + "\n".join(r.sample(PROVERBS, r.randint(3, 6)))


def compare_entry(r):
    a, b = r.sample(LIGHTS, 2)
    hi, lo = (a, b) if a.height > b.height else (b, a)
    old, new = (a, b) if a.built < b.built else (b, a)
    more = hi.steps - lo.steps
    return fill(r, "{hi} is {h} metres high and {lo} is {l} metres high, so {hi} is taller by {d} metres. (It has {more} steps more.|{hs} steps lead up one and {ls} the other.) {old} was built in {o}, "
                "{years} years before {new}.",
                dict(hi=hi.name, lo=lo.name, h=hi.height, l=lo.height, d=hi.height - lo.height, more=more, hs=hi.steps, ls=lo.steps, old=old.name, new=new.name, o=old.built, years=new.built - old.built))


WINDS = ["north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west"]
FORCE = [("calm", "smooth"), ("light", "smooth"), ("gentle", "slight"), ("fresh", "moderate"), ("strong", "rough"), ("gale", "very rough"), ("storm", "high")]


def clock_time(minutes):
    return f"{minutes // 60}.{minutes % 60:02d}"


def log(r, light=None, days=None):
    """A station log of some days: true weekdays, wind that drifts, lamp hours of the season, oil that adds up, and a
    supply boat on every second Tuesday if the sea allows it."""
    light = light or r.choice(LIGHTS)
    f = keeper_fields(light)
    day = datetime.date(r.randint(1921, 1938), 1, 1) + datetime.timedelta(days=r.randrange(365))
    oil, w, force = r.randint(24, 70), r.randrange(8), r.randint(1, 4)
    out = [fill(r, "(Log of {light}|Station log, {light}). Keeper: {K}.", f)]
    cargo_day = r.random() < 0.5
    for _ in range(days or r.randint(3, 9)):
        w = (w + r.choice([-1, 0, 0, 1])) % 8
        force = min(6, max(0, force + r.choice([-2, -1, -1, 0, 1, 1, 2])))
        name, sea = FORCE[force]
        lit = 990 + int(240 * (1 - abs(day.timetuple().tm_yday - 172) / 183)) + r.randint(0, 8)  # 16.30 in winter, 20.30 in June
        used = 4 if lit < 1080 else 3 if lit < 1170 else 2
        lines = [f"{DAYS[day.weekday()]} {day.day} {MONTHS[day.month - 1]} {day.year}."]
        lines.append(("Calm" if force == 0 else f"Wind {WINDS[w]}, {name}") + f". Sea {sea}.")
        fog = force <= 1 and r.random() < 0.3
        if fog:
            lines.append(fill(r, "Fog (until noon|all day|in the morning). Sounded {signal}.", f))
        elif r.random() < 0.4:
            lines.append(fill(r, "(Rain|Showers|Snow) (until noon|after dark|all day)." if day.month in (12, 1, 2) else "(Rain|Showers|Sun) (until noon|after four|all day)."))
        if day.weekday() == 1:
            if cargo_day:
                if force <= 4:
                    got = r.choice([20, 25, 30])
                    lines.append(f"The Marigold came and brought {got} litres of oil. {oil} + {got} = {oil + got}.")
                    oil += got
                else:
                    lines.append("The Marigold did not come: the sea was too " + ("rough." if force == 5 else "high."))
            cargo_day = not cargo_day
        if r.random() < 0.3:
            m = r.choice(MACHINES)
            x = r.choice(m.faults)
            lines.append(capitalize(f"{x.symptom}. {x.remedy}." if r.random() < 0.5 else f"oiled the {m.name}."))
        if r.random() < 0.25:
            lines.append(capitalize(fill(r, r.choice(["{pet} (well|slept all day|caught a mouse|was restless).", "Cooked {dish}.", "Saw a {b}.".replace("{b}", r.choice(BIRDS).name),
                                                      "The {s} passed (north|south).".replace("{s}", r.choice(SHIPS[1:]).name), "Signal from {near}: (all well|wick wanted|come to supper)."]), f)))
        lines.append(f"Lamp lit at {clock_time(lit)}. Oil used {used} litres, {oil} - {used} = {oil - used} left.")
        oil -= used
        out.append(" ".join(lines))
        if oil < 8:
            out[-1] += " Oil is low: green flag hoisted."
            break
        day += datetime.timedelta(days=1)
    return "\n\n".join(out)


def letter(r):
    a = r.choice(LIGHTS)
    b = BY_NAME[a.near] if r.random() < 0.5 else r.choice([x for x in LIGHTS if x is not a])
    f, g = keeper_fields(a), keeper_fields(b)
    bird, ship, m = r.choice(BIRDS), r.choice(SHIPS), r.choice(MACHINES)
    fault = r.choice(m.faults)
    f.update(to=b.first, tolight=b.name, topet=b.pet, toanimal=b.animal, toboat=b.boat, todish=b.dish, bird=bird.name, ship=ship.name, machine=m.name, symptom=fault.symptom,
             cause=fault.cause, remedy=fault.remedy, tool=fault.tool, proverb=r.choice(PROVERBS), sign=r.choice(SIGNS)[0], means="", count=word(r.randint(2, 12)))
    t = Teller(r, f)
    t("Dear {to},")
    t.par()
    t("(thank you for your letter|your letter came with the Marigold|I have read your letter twice), and {pet} (sends greetings|is well|has chewed the envelope).",
      "I hope that you and {topet} are well on {tolight}.", "(it has been quiet|there is news) here on {light} since I last wrote.")
    for s in r.sample([
            ["Last week I saw a {bird} (from the gallery|by {landing}), and it made me think of you."],
            ["The {machine} has given me trouble: {symptom}. (The manual says|I think) that {cause}. {remedy}, it says, and I did, with {tool}.",
             "You asked about your {machine}. If {symptom}, then {cause}. {remedy}, and all will be well."],
            ["The {ship} passed on (Monday|Friday|Sunday) and (dipped her flag|blew her horn|gave us {count} cabbages)."],
            ["I have (climbed|counted) the {steps} steps so often that my knees know each one.", "This week I have climbed the {steps} steps {count} times."],
            ["(Could you send me {count} wicks when Joss Fenn comes by?|Please send {count} candles when Joss Fenn comes by.|I need {count} sheets of paper for the log.)", "Joss Fenn says that the Marigold will bring {count} sacks of flour."],
            ["{sign}, so I have tied down the {boat}.", "{sign}. You know what that means."],
            ["When will you come to supper? I shall make {dish}.", "I still think of your {todish}. Mine is never as good."],
            ["(As we say here|As my mother said): {proverb}"]], r.randint(3, 5)):
        t(*s)
    t.par()
    t("(With good wishes|Yours|Your friend|Keep the light bright),")
    t.par()
    t("{k}")
    return t.text()


def manual(r):
    m = r.choice(MACHINES)
    t = Teller(r, dict(m=m.name, purpose=m.purpose, place=m.place, parts=listing(m.parts), days=m.days, every="every day" if m.days == 1 else f"every {m.days} days"))
    head = fill(r, "(The {m}|How to look after the {m}|Manual of the {m})", t.fields)
    t("The {m} {purpose}.", "The {m} stands {place} and {purpose}.")
    t("It (has|consists of) {parts}.")
    t("Oil it {every}.", "It wants a drop of oil {every}.")
    for x in r.sample(m.faults, r.randint(1, 3)):
        t.par()
        t.fields.update(symptom=x.symptom, cause=x.cause, remedy=x.remedy, tool=x.tool)
        t("If {symptom}, {cause}. {remedy}. (You need {tool}.|Use {tool}.)", "Fault: {symptom}. Cause: {cause}. Remedy: {remedy}.")
    return head + "\n\n" + t.text()


def item(q, unit, what, scale):
    n = q * scale
    if unit:
        if n > 1:
            head, rest = unit.split(" ", 1)
            unit = (head if head.endswith("s") else head + ("es" if head.endswith("ch") else "s")) + " " + rest
        return f"{n} {unit} {what}"
    if n > 1 and not what.endswith("s"):
        what += "s"
    if n == 1 and what.endswith("s"):
        what = what[:-1]
    return f"{n} {what}"


def recipe(r, x=None, people=None):
    x = x or r.choice(RECIPES)
    people = people or r.choice([2, 2, 4, 6])
    scale = people // 2
    f = dict(name=x.name, people=word(people), of=x.of, keeper=BY_NAME[x.of].first, minutes=x.minutes)
    head = capitalize(fill(r, "(recipe for {name}|{name}|{keeper}'s {name}|{name} for {people})", f))
    things = ", ".join(item(*i, scale) for i in x.items)
    steps = [capitalize(s) + "." for s in x.steps]
    body = f"For {word(people)} people you need: {things}.\n\n"
    body += "\n".join(f"{i + 1}. {s}" for i, s in enumerate(steps)) if r.random() < 0.5 else " ".join(steps)
    return head + "\n\n" + body + fill(r, "(\n\nIt takes about {minutes} minutes.|\n\nThis is how {keeper} of {of} makes it.|)", f)


def terms_article(r):
    kind = r.random()
    if kind < 0.45:
        name = r.choice(list(FORMATS))
        n, size, holds, formula = FORMATS[name]
        t = Teller(r, dict(q=name, n=n, size=size, holds=holds, formula=formula, bpw=bpw(name)))
        t("{q} is a packed weight format.", "{q} packs {n} weights into {size} bytes.")
        t("A block (holds|contains) {holds}.")
        t("A weight is decoded as {formula}.", "The formula of a weight is {formula}.")
        t("It takes {bpw} bits per weight: {size} x 8 / {n} = {bpw}.")
        if r.random() < 0.5:
            k = r.choice([256, 512, 768, 1024, 2048, 4096])
            t.fields.update(K=k, blocks=k // n, bytes=k // n * size)
            t("A row of {K} weights has {blocks} blocks and takes {bytes} bytes." if k // n > 1 else "A row of {K} weights is one block of {bytes} bytes.")
        return t.text()
    if kind < 0.6:
        name, (size, e, m) = r.choice(list(FLOATS.items()))
        return f"{name} is a float of {plural(size, 'byte')}: one sign bit, {word(e)} exponent bits and {word(m)} mantissa bits."
    if kind < 0.8:
        return " ".join(r.choice(TERMS[k]) for k in r.sample(list(TERMS), r.randint(2, 4)))
    return "\n\n".join(capitalize(r.choice(q)) + "? " + r.choice(a) for q, a in r.sample(APR, r.randint(1, 3)))
