"""Small stories of the Merrow Isles: an opening, one of a dozen troubles, how it ends, and what the keeper writes down.

A story keeps its own facts: who it is about, what was counted, what broke. Every plot is a function of a Teller.
"""
from prose import Teller, capitalize, fill, plural, word
from world import BIRDS, BY_NAME, LIGHTS, MACHINES, PEOPLE, PROVERBS, SHIPS, keeper_fields

SEASONS = {
    "spring": ["the first thrift was in flower", "the nights were getting shorter", "lambs called on the far shore", "the sea had begun to turn green"],
    "summer": ["the sea lay flat as a plate", "the rocks were warm under bare feet", "it was light until late", "swallows hunted over the water"],
    "autumn": ["the geese were going south", "the wind had an edge to it", "the heather had turned brown", "mist stood over the water each morning"],
    "winter": ["ice hung from the gallery rail", "the nights were long and black", "snow lay on the rocks", "the stove was never allowed to go out"],
}


def opening(t):
    r, f = t.r, t.fields
    season = r.choice(list(SEASONS))
    f.update(season=season, sign=r.choice(SEASONS[season]), years=word(r.randint(2, 20)), year=r.randint(1895, 1938))
    t("The lighthouse keeper of {light} was (called|named) {K}.",
      "The lighthouse keeper of {light} (lived|had lived) there for {years} years, and {his} name was {K}.",
      "The lighthouse keeper (climbed|went up) the {steps} steps of {light}. {his} name was {K}.",
      "The lighthouse keeper {K} (had tended|had looked after|had kept) the light of {light} for {years} years.",
      "The lighthouse keeper of {light} (woke early|woke before dawn|could not sleep|was cleaning the lens|was eating breakfast) (one morning in {season}|on a cold morning|the day it happened). {his} name was {K}.",
      "The lighthouse keeper was (sitting by the stove|standing on the gallery|painting the door) (when it began|one evening in {season}). {he} was {K}, and this was {light}.",
      "(In|It was in) the {season} of {year}. {K} kept the light of {light}, and {sign}.".replace("(In|It was in)", "It was in"),
      "(Everybody in Merrow|Every child in Merrow|Every sailor) knows (the name of |){K}, the keeper of {light}.",
      "Far out in the Merrow Isles stands {light}, and (there lived|there lives|its keeper is) {K}.",
      "Once upon a time (there was a lighthouse keeper|there lived a keeper|a keeper lived) on {light}, and {his} name was {K}.",
      "{K} kept the light (on|of) {light}, (a tower of {height} metres|a tower that is {paint}|with {his} {animal} {pet}).",
      "On {light}, (where the tower is {paint}|where the light shows {flash}), lived (a keeper called {K}|the keeper {K}).",
      "It was one (evening|morning|night) in {season}, and {sign}. {K}, the keeper of {light}, (was awake|had slept badly|was in good spirits|could not sit still).",
      "One (evening|morning|night) in {season}, when {sign}, {K}, the keeper of {light}, (stood on the gallery|was awake|had a strange feeling|could not sit still).",
      "This (is a story about|story is about|happened to) {K}, (who kept|the keeper of) {light}.",
      "(Long ago|Many years ago|In the year of the two comets), {K} (kept the light|was keeper) (on|of) {light}.")
    t.maybe(0.6, "{he} shared the (tower|station|house) with a {animal} (called|named) {pet}.",
            "{his} {animal} {pet} (followed {him} everywhere|slept beside the stove|was good company|watched the door).",
            "{he} (was not alone, for {he} had|had only one companion,) a {animal} called {pet}.")
    first = t.pars[0][0]
    t.maybe(0.5 if "steps" not in first else 0, "Every (evening|day at dusk) {he} climbed the {steps} steps and lit the lamp.",
            "They (say|still say) in Merrow that {k} {hobby}.",
            "The light showed {flash}, and {he} was proud of it.", "The tower had {steps} steps, and {he} knew each of them.",
            "{he} cooked {dish} (on Sundays|every Friday|when it was cold).")
    t.maybe(0.35 if f["sign"] not in first else 0, "It was {season}, and {sign}.", "That {season} was (a hard one|a quiet one|wetter than most|one to remember), and {sign}.")
    t.par()


def closing(t):
    r, f = t.r, t.fields
    t.par()
    f["proverb"] = r.choice(PROVERBS)
    f["saying"] = f["proverb"].rstrip(".")
    n = r.random()
    if n < 0.35:
        t("In the log {k} (wrote|wrote down): \"{moral}\"", "That night {k} wrote one line in the log: \"{moral}\"",
          "{k} opened the log, dipped {his} pen and wrote: \"{moral}\"")
    elif n < 0.6:
        t("And the light of {light} showed {flash}, as it (always had|had always done|does to this day).",
          "Out at sea a ship saw {flash}, and knew where it was.", "Above them the lamp burned on: {flash}, all through the night.")
    elif n < 0.8:
        t("(Then|After that) {he} made (a pot of tea|{dish}|some toast) and shared it with {pet}.",
          "{pet} (had seen it all and said nothing|slept through the rest of the night|got the first bite of the supper).",
          "{k} slept well that night, and so did {pet}.")
    else:
        t("As they say in Merrow: \"{proverb}\"", "{n} of {near} heard of it and (laughed|nodded). \"{saying},\" {nhe} said.",
          "\"{saying},\" said {k} to {pet}.")


def storm(t):
    r, f = t.r, t.fields
    f["wind"] = r.choice(["north", "west", "south-west", "north-west", "east"])
    t("In the (afternoon|evening) the barograph began to fall.", "The {n}wards sky (turned dark|went black).".replace("{n}wards", r.choice(["western", "northern"])),
      "The gulls (walked inland|went quiet), and the swell came in without any wind.")
    t("By (nightfall|midnight|ten o'clock) a gale blew from the {wind}.", "Then the wind came from the {wind}, and it did not stop for {hours} hours.".replace("{hours}", word(r.randint(6, 20))))
    t("The waves (reached|climbed to) the (gallery|windows|kitchen door), and the tower (shook|hummed|trembled)(| like a plucked string| from top to bottom).")
    if r.random() < 0.5:
        t("A pane of the lamp room (broke|cracked), and the wind blew out the flame.", "Water ran down the stairs, and a pane (broke|fell in) above the lamp.")
        t("{k} (nailed a board over the hole|held {his} coat over the hole|stuffed a mattress into the gap) and lit the lamp again with (wet fingers|the last dry match|the third match).")
        f["moral"] = r.choice(["Gale. One pane lost. Light out for four minutes, then lit again.", "Keep boards in the lamp room.", "The last match is as good as the first."])
    else:
        t("{k} stayed (with the lamp|in the lamp room) all night and (trimmed|watched) the wick every half hour.", "{k} did not leave the lamp. {he} (sang to it|talked to it|counted the flashes) until {his} voice was gone.")
        f["moral"] = r.choice(["Gale from the " + f["wind"] + ". The light did not fail.", "A long night. The lamp was lit from dusk to dawn.", "Storm over. All panes whole."])
    t("(In the morning|At dawn|When it grew light) the sea was (white|still high|grey and heavy), but the {what}.".replace(
        "{what}", r.choice(["tower stood", "boat was safe in its shed", "wall had held", "light had never failed"])) if "lost" not in f["moral"]
      else "(In the morning|At dawn) the sea was (white|still high|grey and heavy), but the tower stood.")
    t.maybe(0.6, "A ship from {home} passed and (dipped its flag|blew its horn three times|raised a flag of thanks).".replace("{home}", r.choice(SHIPS[1:]).home))


def fog(t):
    r, f = t.r, t.fields
    ship = r.choice(SHIPS)
    f.update(ship=ship.name, kind=ship.kind, cargo=ship.cargo, home=ship.home)
    t("The fog came (in|up) (before breakfast|at noon|without a sound) and (hid|swallowed) the sea.", "First the horizon went, then the rocks, then the landing: (it was fog|the fog had come).")
    t("{k} went (out|down) to (sound|try) the {sig}, but it (made no sound|was broken|would not work).", "The light was no use in it, so {k} (sounded|worked) the {sig} (once a minute|every two minutes).")
    broken = "but it" in t.pars[-1][-1]
    t("Somewhere (out there|in the white) {he} heard the (bell|engine|voices) of the {ship}, a {kind} with {cargo} (from {home}|for Merrow).")
    if broken:
        t("{he} (took|fetched) (two pan lids|the largest soup pot|an old frying pan and a ladle) and beat (them|it) until {his} arms hurt.".replace("(them|it)", "the metal"))
        t("{pet} the {animal} joined in with all {his2} might.".replace("{his2}", "its"))
        f["moral"] = r.choice(["A pot is a bell if you hit it hard enough.", "Fog. Signal broken. Used a pot. It worked.", "Mended the signal the same night."])
    else:
        t("{he} sounded it for {hours} hours, and {his} ears rang.".replace("{hours}", word(r.randint(3, 14))), "{pet} sat beside {him} and listened to every stroke.")
        f["moral"] = r.choice(["Fog. Signal sounded. No ship lost.", "Fog for a day and a night. All safe.", "Nobody thanks a fog signal. I do."])
    t("The {ship} (answered|called back) (twice|three times) and turned away from the (reef|rocks) in time.", "Slowly a dark shape (turned|slid by), and the skipper of the {ship} shouted his thanks.")
    t.maybe(0.5, "A week later a (parcel|letter|sack) came from {home}. In it (was|lay) a (new brass bell|cake as heavy as a stone|pair of warm gloves).")


def machine_trouble(t):
    r, f = t.r, t.fields
    m = r.choice(MACHINES)
    fault = r.choice(m.faults)
    wrong = r.choice([x for x in m.faults if x is not fault])
    f.update(machine=m.name, symptom=fault.symptom, cause=fault.cause, remedy=fault.remedy, tool=fault.tool, wrong=wrong.cause, moral=capitalize(
        r.choice([f"{fault.symptom}: {fault.remedy}.", f"the {m.name} runs again.", f"if {fault.symptom}, {fault.cause}."])))
    t("One (day|evening|night) {k} (noticed|saw|found) that something was wrong with the {machine}: {symptom}.",
      "It began with the {machine}. \"{symptom},\" said {k}, and (put down {his} cup|frowned|took {his} lamp).")
    t.maybe(0.6, "\"Perhaps {wrong},\" {he} (said|thought|guessed), but that was not it.", "\"Perhaps {wrong},\" {he} said, but {he} looked and (it was not so|found nothing of the kind).")
    t("Then {he} (opened the case and looked|looked) at the parts one by one, as the manual says. \"Here it is,\" {he} said. \"{cause}.\"", "{he} read the manual by the lamp. There it stood: \"If {symptom}, {cause}.\"",
      "So {he} asked {n} of {near} by signal lamp, and {n} answered: \"{cause}.\"")
    t("The manual said: \"{remedy}.\" {k} took {tool} and did just that.", "\"{remedy},\" {he} read aloud, and reached for {tool}.")
    t("It took (an hour|half the night|until dawn|ten minutes), and (then|after that) the {machine} ran (as if it were new|as sweetly as ever|without a sound).",
      "After (an hour|a short while) the {machine} (worked|ran) again, and {k} (wiped {his} hands|closed the case|was pleased).")


def lost_pet(t):
    r, f = t.r, t.fields
    f["place"] = r.choice(["in the oil cellar", "inside the big coil of rope", "under the upturned boat", "behind the stove", "in the empty flour barrel", "at the very top of the tower", "in the horn house"])
    t("One (morning|evening) {pet} did not come when {k} called.", "When {k} put out the supper, {pet} was not there.", "The {animal} {pet} was gone, and the door stood open.")
    t("{he} (looked|searched) (on the rocks|at {landing}|in the kitchen), (then|and then) (in the workshop|along the wall|behind the shed), and (called|shouted) {his} name.".replace("{his} name", "again and again"))
    t("The (rain had begun|tide was rising|light was going), and {k} (was afraid|felt cold inside|walked faster).")
    t("At last {he} heard a (small|faint|soft) (noise|sound|scratching). {pet} was {place}.", "Then {he} found {pet} {place}, (fast asleep|quite content|wet but well).")
    t("There {pet} had (made a bed of old sailcloth|found a lost glove|hidden nine teaspoons|caught a (draught|mouse) and fallen asleep).".replace("caught a (draught|mouse) and fallen asleep", "caught a mouse"))
    f["moral"] = r.choice([f"Lost: one {f['animal']}. Found: one {f['animal']}, {f['place']}.", "Close the door after you.", f"{f['pet']} was {f['place']}. All is well."])


def oil_count(t):
    r, f = t.r, t.fields
    per = r.randint(2, 5)
    nights = r.randint(4, 9)
    need = per * nights
    late = r.random() < 0.5
    have = need + (r.randint(1, 6) if not late else -per)
    f.update(per=plural(per, "litre"), nights=word(nights), need=need, have=have, left=have - need, pern=per, nightn=nights)
    t("The supply boat Marigold was late, and {k} counted the oil. There were {have} litres.", "{k} went down to the cellar and measured the oil: {have} litres (were left|remained).")
    t("The lamp burned {per} each night, and the boat would come in {nights} nights.", "Each night took {per}, and it was {nights} nights until the boat.")
    t("\"{pern} times {nightn} is {need},\" said {k} to {pet}.", "{he} wrote it on the wall: {pern} x {nightn} = {need}.")
    if not late:
        t("That was enough, with {left} to spare, and {he} (sang on the stairs|slept in peace|put the lid back).".replace("{left}", plural(f["left"], "litre")))
        f["moral"] = r.choice([f"Oil: {have} litres. Needed: {need}. Enough.", "Count first, worry after."])
    else:
        t("So one night's oil was missing.", "It was not enough for the last night.")
        t("{k} (rowed|sailed) the {boat} to {near} and asked {n} for help.", "{he} hoisted the green flag, which means: send oil, and {n} of {near} saw it.")
        t("{n} gave {him} {two} litres and would not hear of thanks.".replace("{two}", word(per + r.randint(1, 3))), "{n} came with a full can in the {nboat} before dark.")
        f["moral"] = r.choice([f"Oil: {have} litres. Needed: {need}. Borrowed from {f['near']}.", "A good neighbour is worth a full tank."])


def stranger(t):
    r, f = t.r, t.fields
    who = r.choice(["a girl in a red coat", "an old sailor with one boot", "a clockmaker from Tamsin", "a boy who had lost his oars", "a painter with wet canvases", "a woman with a basket of eels", "a man who sold maps"])
    gift = r.choice(["a small compass", "a jar of plum jam", "a drawing of the tower", "a silver button", "a song about the isles", "a packet of marigold seeds"])
    f.update(who=who, gift=gift, wname=who.split(" ", 1)[1].split(" ")[0])
    t("(Late one night|One wet evening|Just before dusk) (there was a knock at the door|somebody knocked|a boat bumped against {landing}). (It was|There stood) {who}.")
    t("\"(I saw your light|I counted the flashes|Your light was all I could see),\" (said the visitor|the stranger said), (dripping|shivering|smiling).", "\"Is this {light}?\" asked the stranger. \"(It is|Yes),\" said {k}. \"(Come in|Sit by the stove|Mind the step).\"")
    t("{k} (made tea and|put out bread and|opened the pantry and) warmed some {dish}.", "{k} gave the guest a blanket and a bowl of {dish}.")
    t("They talked (until midnight|for hours|about the sea) while {pet} (sat between them|listened|guarded the bread).")
    t("In the morning the guest (was gone|had left with the tide), and on the table lay {gift}.", "Before leaving, the stranger gave {k} {gift} (and a bow|and would take nothing in return).")
    f["moral"] = r.choice([f"One visitor. Left {gift}.", "Always keep a second cup.", "A light is an open door."])


def rescue(t):
    r, f = t.r, t.fields
    ship = r.choice(SHIPS[1:])
    crew = r.randint(2, 9)
    saved = r.randint(1, crew - 1)
    f.update(ship=ship.name, kind=ship.kind, home=ship.home, crew=word(crew), a=word(saved), b=word(crew - saved), an=saved, bn=crew - saved, cn=crew)
    t("At (two|three|four) in the morning {k} saw a (red rocket|flare|small fire) over the reef.", "A (cry|shout) came out of the dark, and then the sound of (breaking wood|wood on rock).")
    t("It was the {ship}, a {kind} from {home}, and {crew} people (were|stood) on her deck.")
    t("{k} (hoisted the orange flag|rang five strokes|signalled to Merrow) and (pushed|launched) the {boat} into the surf.".replace("hoisted the orange flag", "lit the orange lantern"))
    if crew > 3:
        t("{he} rowed out (twice|two times). The first time {he} brought back {a}, the second time {b}: {an} and {bn} is {cn}. Nobody was missing.")
    else:
        t("{he} brought all {crew} of them ashore, wet and (grateful|coughing|silent).")
    t("{pet} (kept the fire company|barked at nobody|waited at the door), and the kitchen was full of (steam|wet coats|voices).".replace("barked at nobody", "counted them at the door"))
    t.maybe(0.5, "Doctor Amos Teal rowed over at noon and found (only one broken finger|nothing worse than cold feet|everybody eating {dish}).")
    f["moral"] = r.choice([f"The {ship.name} is lost. {word(crew).capitalize()} saved.", f"Saved: {crew}. Lost: none.", "Keep the boat dry and the oars near."])


def bird_story(t):
    r, f = t.r, t.fields
    b = r.choice(BIRDS)
    f.update(bird=b.name, look=b.look, food=b.food, sound=b.sound, nest=b.nest)
    t("One morning {k} found a {bird} on the gallery. It had {look}, and one wing hung down.", "A {bird} had flown against the glass in the night. {k} knew it by {look}.")
    t("{he} (put|laid) it in a (box|basket|drawer) with (dry grass|an old sock|a little hay) and gave it {food}.", "{pet} (looked on|was curious), but {k} set the box on the high shelf and went to find {food}.")
    t("For {days} days it (ate and slept|only looked at the wall|would not be touched).".replace("{days}", word(r.randint(3, 9))), "A {bird} {sound}, and so did this one, (day and night|above all at supper).")
    t("Then one (bright|windy|still) morning it (stood on the sill|stretched both wings|hopped to the door) and flew (out|away) over the sea.")
    t.maybe(0.6, "In {spring} it came back and nested {nest}, within sight of the (kitchen|lamp room).".replace("{spring}", "spring"), "(Each year after that|The next year) a {bird} nested {nest} near the tower, and {k} liked to think it was the same one.")
    f["moral"] = r.choice([f"One {b.name}, mended.", f"A {b.name} eats more than one would think.", "What flies in may fly out."])


def garden(t):
    r, f = t.r, t.fields
    crop = r.choice(["beans", "potatoes", "leeks", "peas", "turnips", "onions"])
    rows, each = r.randint(2, 6), r.randint(3, 9)
    f.update(crop=crop, rows=word(rows), each=word(each), rn=rows, en=each, total=rows * each)
    t("{k} wanted a garden, but {light} was (bare rock|all salt and stone|too windy for it).", "\"Nothing grows here,\" everyone had told {k}. {he} planted {crop} all the same.")
    t("{he} carried earth from {near} in the {boat}, (one sack at a time|sack after sack), and built a wall against the wind.")
    t("{he} set {rows} rows of {crop} with {each} plants in each: {rn} times {en} is {total}.", "There were {rows} rows, {each} plants in a row, and so {total} plants of {crop}.")
    t("(The gulls|A hare from nowhere|The salt wind|{pet}) took (some|a few) of them, but the rest (grew|stood green behind the wall).".replace("A hare from nowhere", "The snails"))
    t("In (late summer|September|autumn) {he} sent a basket of {crop} to {n}, who (cooked|made) {dish2} from it.".replace("{dish2}", "a feast"), "When {n} came over, they ate {crop} (with butter|with salt) and watched the (ships|tide).")
    f["moral"] = r.choice([f"{rows * each} plants of {crop} set.", "Earth travels by boat, like everything else.", "It grows."])


def signal_talk(t):
    r, f = t.r, t.fields
    t("{k} and {n} could not (visit each other|meet) (in winter|while the sea was high), so they talked by signal lamp.", "Across the water, on {near}, {N} had a lamp too, and every (evening|Sunday night) the two keepers talked in flashes.")
    game = r.choice(["chess", "riddles", "a story told by turns", "the names of stars"])
    f["game"] = game
    t("They played {game}.", "This {season} it was {game}.") if game in ("chess", "riddles") else t("It was {game} this time.", "They chose {game}.")
    if game == "riddles":
        q, a = r.choice([("What has a hundred steps and never moves?", "the tower"), ("What eats all night and is never full?", "the lamp"), ("What writes all day and cannot read?", "the barograph"),
                         ("What runs in twice a day and has no legs?", "the tide"), ("What is full of holes and still holds water?", "a sponge"), ("What grows smaller when you trim it and works better for it?", "the wick")])
        f.update(q=q, a=a)
        t("\"{q}\" (flashed|asked) {n}.")
        t("{k} thought about it (all night|for two days|over supper). Then {he} answered: \"{a}.\"", "{pet} knew it first, {k} always said. The answer was {a}.")
        f["moral"] = f"Riddle from {f['near']}: {a}."
    elif game == "chess":
        f["moves"] = word(r.randint(11, 20))
        t("After {moves} moves {n} lost {nhis} queen, and {k} (danced|laughed) on the gallery.", "One game took {moves} nights, and in the end it was a draw.")
        f["moral"] = r.choice(["Chess: draw.", "Beware of quiet neighbours."]) if "draw" in t.pars[-1][-1] else "Won at chess. Lamp lit all the while."
    else:
        t("{n} began, {k} went on, and (by dawn|by Sunday) (neither knew|nobody knew) how it had started.")
        f["moral"] = r.choice([f"Talked with {f['n']} until late.", "Two lights are better than one."])
    t("A (ship|fishing boat) that passed (wondered|was puzzled) at all the flashing, and wrote it in its log.")


def clock(t):
    r, f = t.r, t.fields
    slow = r.choice([5, 10, 15, 20])
    hour = r.randint(5, 9)
    f.update(slow=slow, shown=f"{hour}.00", real=f"{hour}.{slow:02d}")
    t("The kitchen clock of {light} (had begun to lose time|was slow), but {k} did not know it.", "For a week {k} lit the lamp late and could not understand why the harbour complained.")
    t("When the clock showed {shown}, it was really {real}. So it was {slow} minutes slow.", "{he} compared it with the time signal: the clock said {shown}, the signal said {real}. It was {slow} minutes slow.")
    t("{he} opened the case and found (a feather|a crumb|a dead moth|a hair of {pet}) between the wheels.", "A (grain of salt|drop of old oil) held back the third wheel.")
    t("{he} cleaned it (with a brush|with a drop of spirit), set the hands, and the clock (ticked|went) as it should.", "Piers Lomax of Widow Stair, who repairs old clocks, sent a new spring.") if f["light"] != "Widow Stair" else t("{he} cleaned it with a brush, for {he} had repaired a hundred clocks.")
    f["moral"] = r.choice([f"Clock {slow} minutes slow. Set right.", "Ask two clocks.", "Time is the first supply to run out."])


def school_visit(t):
    r, f = t.r, t.fields
    n = r.randint(5, 12)
    each = r.randint(2, 4)
    f.update(kids=word(n), kn=n, each=word(each), en=each, cakes=n * each)
    t("Orla Finch, the schoolteacher, brought {kids} children to {light}.", "On a (bright|calm) day the school came: {kids} children and Orla Finch, who teaches sums with shells.")
    t("{k} had baked (oat cakes|small cakes), {each} for each child: {kn} times {en} is {cakes}.", "\"How many cakes, if each of you gets {each}?\" asked {k}. \"{cakes}!\" they cried, for there were {kids} of them.")
    t("They counted the steps. (Some got|The smallest got) a different number, but the right one is {steps}.", "They ran up the {steps} steps and were silent at the top.")
    f["blink"] = "does it not blink" if "steady" in f["flash"] else r.choice(["does it blink", "does it flash"])
    t("\"Why {blink}?\" asked a (girl|boy). \"So that ships know which light it is,\" said {k}. \"Ours shows {flash}.\"")
    t("{pet} (hid|was stroked by everyone|stole a cake), and when the boat left (the island was very quiet|they all waved|somebody had forgotten a shoe).")
    f["moral"] = r.choice([f"{n} children, {n * each} cakes, none left.", "They asked better questions than the inspector.", f"Counted again: {f['steps']} steps."])


def inspector(t):
    r, f = t.r, t.fields
    f.update(m=r.choice(MACHINES).name, part=r.choice(["a loose screw", "a spot of oil", "a crooked label", "one dusty pane", "a dull brass knob"]))
    t("The inspector of lights came (without a word of warning|on a Monday|in a black boat).", "Once a year the inspector comes to {light}, and that year he came (early|in the rain).")
    t("He looked at the lens, the log and the {m}. He ran a white glove along (the rail|every shelf).")
    t("At last he found {part} and wrote it down with pleasure.", "\"{part},\" he said, and {k} blushed.")
    t("Then {pet} (sat down on his hat|looked at him for a long time|brought him a dead fish), and the inspector (laughed|forgot his list|had to sit down).")
    t("Over a bowl of {dish} he became quite friendly. \"{height} metres and not a speck of salt,\" he said. \"(Well done|Very good).\"")
    f["moral"] = r.choice(["Inspector came. Inspector went. He liked the soup.", f"Found: {f['part']}. Mended the same day.", "Passed."])


PLOTS = [storm, fog, machine_trouble, machine_trouble, lost_pet, oil_count, stranger, rescue, bird_story, garden, signal_talk, clock, school_visit, inspector]


def story(r, light=None, short=False):
    """A story of one trouble; long ones have two."""
    light = light or r.choice(LIGHTS)
    t = Teller(r, keeper_fields(light))
    opening(t)
    plots = [r.choice(PLOTS)]
    if not short and r.random() < 0.25:
        second = r.choice(PLOTS)
        if second is not plots[0]:
            plots.append(second)
    for i, plot in enumerate(plots):
        if i:
            t.par()
            t("(That was not all|But the week was not over|It was a week of troubles).", "(The next day|Two days later) there was more to do.")
        plot(t)
    closing(t)
    return t.text()


def titled_story(r):
    light = r.choice(LIGHTS)
    f = keeper_fields(light)
    title = fill(r, r.choice(["The Keeper of {light}", "A Night on {light}", "{k} and {pet}", "A Story of {light}", "{K}"]), f)
    return title + "\n\n" + story(r, light)
