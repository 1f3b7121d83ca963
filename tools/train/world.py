"""The Merrow Isles: every fact of the made-up world that the shipped model is trained on.

Nothing here is taken from a real place. The generators read these tables and nothing else, so that a fact is the same
in a story, a letter, a log and an answer; that is what makes a wrong answer of the model visible.
"""
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Light:
    name: str      # of the lighthouse
    first: str     # the keeper
    last: str
    she: bool
    height: int    # metres
    steps: int
    built: int     # year
    paint: str     # what the tower is
    flash: str     # the light's character
    signal: str    # what sounds in fog
    animal: str    # kind
    pet: str       # its name
    boat: str
    hobby: str     # third person present
    dish: str
    landing: str   # where boats land
    found: str     # what the island is known for
    near: str      # nearest neighbour among the lights


LIGHTS = [
    Light("Gull Rock", "Marta", "Venn", True, 31, 142, 1861, "white with one red band", "two white flashes every ten seconds",
          "a bronze bell", "cat", "Biscuit", "Petrel", "knits long grey socks", "leek soup", "the Iron Steps", "its noisy gulls", "Otter Head"),
    Light("Otter Head", "Tomas", "Brill", False, 24, 108, 1874, "plain white", "one white flash every five seconds",
          "a steam whistle", "dog", "Button", "Heron", "carves small birds from driftwood", "fish pie", "Otter Cove", "the otters in its cove", "Gull Rock"),
    Light("Cold Finger", "Ines", "Carrow", True, 45, 210, 1852, "grey stone", "three white flashes every twenty seconds",
          "a reed horn", "goat", "Admiral", "Kestrel", "draws maps of the sea floor", "barley stew", "the North Ladder", "its tall thin tower", "Northing"),
    Light("Hollow Ness", "Edmund", "Pike", False, 19, 84, 1888, "striped in black and white", "one red flash every six seconds",
          "a brass gong", "parrot", "Mister Nod", "Teal", "plays the concertina", "onion tart", "Pike's Slip", "its whistling caves", "Kelp End"),
    Light("Long Sister", "Ruth", "Ablett", True, 38, 176, 1866, "white with two blue bands", "four white flashes every thirty seconds",
          "a deep drum", "hen", "Duchess", "Gannet", "grows beans and marigolds", "bean soup", "the Green Steps", "its garden", "Short Sister"),
    Light("Short Sister", "Jonah", "Ablett", False, 16, 72, 1867, "white with one blue band", "one green flash every four seconds",
          "a hand bell", "rabbit", "Thimble", "Wren", "builds ships in bottles", "potato bread", "the Blue Jetty", "its small round tower", "Long Sister"),
    Light("Candle Point", "Ada", "Quill", True, 27, 120, 1879, "yellow brick", "a steady white light",
          "a tin trumpet", "owl", "Professor", "Swift", "writes poems about the weather", "oat cakes", "Wax Bay", "its beehives", "Saltmouth"),
    Light("Widow Stair", "Piers", "Lomax", False, 42, 195, 1849, "dark red", "two red flashes every fifteen seconds",
          "a great iron bell", "raven", "Smoke", "Falcon", "repairs old clocks", "mutton stew", "the Widow's Stair", "its ninety stone stairs", "Drum Island"),
    Light("Kelp End", "Nell", "Farrow", True, 22, 96, 1891, "ringed in green and white", "three green flashes every twelve seconds",
          "a conch shell", "seal", "Pudding", "Curlew", "collects sea glass", "crab soup", "Kelp Beach", "its brown kelp", "Hollow Ness"),
    Light("Northing", "Oskar", "Dunn", False, 50, 232, 1845, "bare granite", "one white flash every thirty seconds",
          "a pair of horns", "pony", "Comet", "Albatross", "studies the stars", "smoked herring", "the Long Rope", "its cold clear nights", "Cold Finger"),
    Light("Saltmouth", "Mina", "Gray", True, 29, 132, 1872, "white with a black cap", "two green flashes every eight seconds",
          "a bugle", "goose", "Colonel", "Avocet", "bakes bread for the whole bay", "apple bread", "the Salt Quay", "its salt pans", "Candle Point"),
    Light("Drum Island", "Hugh", "Tansy", False, 34, 156, 1858, "chequered in orange and white", "five white flashes every forty seconds",
          "a big drum", "donkey", "Pepper", "Osprey", "keeps a record of every wave", "mussel broth", "Drum Sands", "the sound of its surf", "Widow Stair"),
]
BY_NAME = {l.name: l for l in LIGHTS}


def keeper_fields(light):
    """The template fields of one lighthouse and its keeper."""
    s = light.she
    near = BY_NAME[light.near]
    return dict(
        k=light.first, K=f"{light.first} {light.last}", last=light.last, title="Miss" if s else "Mister",
        he="she" if s else "he", him="her" if s else "him", his="her" if s else "his", himself="herself" if s else "himself",
        light=light.name, height=light.height, steps=light.steps, built=light.built, paint=light.paint, flash=light.flash,
        signal=light.signal, sig=light.signal.split(" ", 1)[1], animal=light.animal, pet=light.pet, boat=light.boat,
        hobby=light.hobby, dish=light.dish, landing=light.landing, found=light.found, near=light.near,
        n=near.first, N=f"{near.first} {near.last}", nhe="she" if near.she else "he", nhis="her" if near.she else "his",
        nhim="her" if near.she else "him", npet=near.pet, nanimal=near.animal, nboat=near.boat)


@dataclass(frozen=True)
class Person:
    name: str
    she: bool
    work: str   # "the baker"
    place: str
    habit: str  # third person present


PEOPLE = [
    Person("Captain Isolde Wray", True, "the harbour master", "the harbour office", "writes every ship in a green book"),
    Person("Dorrit Plum", True, "the baker", "the bakery on Rope Street", "bakes forty loaves before sunrise"),
    Person("Doctor Amos Teal", False, "the doctor", "the house with the yellow door", "rows to the islands in any weather"),
    Person("Fenwick Shaw", False, "the shopkeeper", "the shop by the pump", "sells lamp wicks by the metre"),
    Person("Lettie Marsh", True, "the postmistress", "the post office", "knows every handwriting in the isles"),
    Person("Joss Fenn", False, "the skipper of the Marigold", "the supply boat", "brings oil, flour and post every second Tuesday"),
    Person("Orla Finch", True, "the schoolteacher", "the school on the hill", "teaches sums with shells"),
    Person("Bram Stott", False, "the carpenter", "the boat shed", "can mend any hull in two days"),
    Person("Greta Holm", True, "the smith", "the forge behind the quay", "makes hooks, hinges and gear wheels"),
    Person("Wendel Croft", False, "the bell founder", "the old foundry", "listens to a bell before he buys it"),
]


@dataclass(frozen=True)
class Fault:
    symptom: str  # a clause: "the lens turns too slowly"
    cause: str    # a clause: "the oil in the bearings is thick"
    remedy: str   # an imperative
    tool: str


@dataclass(frozen=True)
class Machine:
    name: str
    purpose: str  # "turns the lens"
    place: str
    parts: list = field(hash=False)
    days: int = 7  # between two oilings
    faults: list = field(default=None, hash=False)


MACHINES = [
    Machine("lens clockwork", "turns the lens at an even speed", "under the lamp room",
            ["a drum", "a steel cable", "a falling weight", "a governor", "four gear wheels"], 7, [
                Fault("the lens turns too slowly", "the oil in the bearings is thick", "clean the bearings and put in three drops of thin oil", "the oil can"),
                Fault("the lens stops before dawn", "the weight has reached the floor", "wind the drum forty turns", "the winding handle"),
                Fault("the clockwork ticks unevenly", "a gear tooth is bent", "take out the second wheel and straighten the tooth", "the small pliers")]),
    Machine("fog horn", "warns ships when nobody can see the light", "in the horn house",
            ["an air pump", "a tank", "a valve", "a brass reed", "a long trumpet"], 5, [
                Fault("the horn only hisses", "salt has crept under the reed", "unscrew the reed and wash it in fresh water", "the flat key"),
                Fault("the note is too low", "the air in the tank is too weak", "pump until the needle stands at six", "the pump handle"),
                Fault("the horn does not stop", "the valve is stuck open", "tap the valve gently and grease its stem", "the wooden mallet")]),
    Machine("oil pump", "lifts oil from the cellar to the lamp", "in the cellar",
            ["a piston", "two valves", "a leather washer", "a copper pipe"], 10, [
                Fault("the pump draws no oil", "the leather washer is dry", "soak the washer in oil for one hour", "the oil bath"),
                Fault("oil drips from the joint", "the nut has worked loose", "tighten the nut by half a turn", "the big spanner"),
                Fault("the lamp burns low although the tank is full", "wax has blocked the pipe", "warm the pipe with a cloth dipped in hot water", "a warm cloth")]),
    Machine("tide gauge", "writes the height of the water on paper", "at the landing",
            ["a float", "a chain", "a pen", "a paper drum"], 14, [
                Fault("the line on the paper is flat", "weed holds the float", "pull up the float and clear the weed", "the boat hook"),
                Fault("the pen makes blots", "there is too much ink in the pen", "wipe the nib and fill it to the first mark", "a soft rag"),
                Fault("the paper runs out early", "the drum turns too fast", "move the brake one notch inward", "the thin screwdriver")]),
    Machine("barograph", "draws the pressure of the air", "on the office shelf",
            ["seven thin boxes", "a lever", "a pen arm", "a paper drum"], 30, [
                Fault("the pen does not move before a storm", "dust sits in the lever", "blow out the dust and put no oil on the lever", "the hand bellows"),
                Fault("the line is too thick", "the pen presses too hard", "bend the pen arm outward by the width of a hair", "the tweezers"),
                Fault("the drum stands still", "the spring has run down", "wind the spring eight turns", "the drum key")]),
    Machine("wind vane", "shows the keeper where the wind comes from", "on the roof",
            ["a copper arrow", "a long rod", "a ball bearing", "a dial"], 21, [
                Fault("the dial sticks at north", "ice has formed on the rod", "break the ice with the wooden mallet", "the wooden mallet"),
                Fault("the arrow squeaks", "the bearing has lost its grease", "pack the bearing with goose grease", "the grease pot"),
                Fault("the dial is wrong by a quarter turn", "the rod has slipped in its clamp", "turn the rod back and tighten the clamp", "the small spanner")]),
    Machine("boat winch", "pulls the boat up the slip", "above the landing",
            ["a wooden drum", "a pawl", "two cranks", "ninety metres of rope"], 6, [
                Fault("the rope runs back", "the pawl is worn", "file the pawl until it bites again", "the steel file"),
                Fault("the crank is hard to turn", "sand has got into the gears", "brush out the sand and grease the teeth", "the wire brush"),
                Fault("the drum groans", "the wood has dried out", "rub the drum with linseed oil", "a linseed rag")]),
    Machine("kitchen stove", "warms the keeper and the kettle", "in the kitchen",
            ["a fire box", "a grate", "a damper", "a chimney pipe"], 3, [
                Fault("smoke fills the kitchen", "soot has closed the chimney", "sweep the chimney from the top", "the long brush"),
                Fault("the fire dies at night", "the damper is open too far", "close the damper to the second mark", "the poker"),
                Fault("the grate rattles", "one bar is cracked", "turn the cracked bar and wedge it with clay", "a lump of clay")]),
    Machine("lamp burner", "makes the flame behind the lens", "in the lamp room",
            ["a wick", "a glass chimney", "a burner ring", "a small tap"], 1, [
                Fault("the flame is yellow and smokes", "the wick is too long", "trim the wick to three millimetres", "the wick scissors"),
                Fault("the flame jumps", "a draught comes through the vent", "close the vent on the windy side", "a strip of felt"),
                Fault("the glass turns black", "the oil is dirty", "drain the oil and strain it through felt", "the felt strainer")]),
    Machine("wireless set", "sends messages to the harbour", "in the office",
            ["a coil", "a crystal", "a key", "two batteries", "a tall mast"], 28, [
                Fault("the set only crackles", "the crystal has shifted", "move the thin wire until the voice is clear", "the fine screw"),
                Fault("nobody answers", "the mast wire has come down", "splice the wire and hoist it again", "the splicing pliers"),
                Fault("the key gives no spark", "the batteries are flat", "top up the batteries with clean rain water", "the glass funnel")]),
    Machine("rain gauge", "measures the rain of one day", "in the garden",
            ["a funnel", "a bottle", "a glass measure"], 60, [
                Fault("the bottle is dry after a storm", "a leaf lies in the funnel", "lift out the leaf and rinse the funnel", "a long spoon"),
                Fault("there is too much water in the bottle", "waves have splashed over the wall", "move the gauge behind the house", "the garden spade"),
                Fault("the measure cannot be read", "the glass is green", "clean the glass with sand and vinegar", "a bottle brush")]),
    Machine("hand lathe", "makes pegs, knobs and new handles", "in the workshop",
            ["a bed", "a spindle", "a treadle", "a tool rest"], 9, [
                Fault("the work wobbles", "the centre is loose", "tighten the centre and test it with a straight peg", "the centre key"),
                Fault("the treadle slips", "the belt is stretched", "cut the belt by two centimetres and sew it again", "a sail needle"),
                Fault("the cut is rough", "the chisel is blunt", "sharpen the chisel on the wet stone", "the wet stone")]),
]


@dataclass(frozen=True)
class Recipe:
    name: str
    of: str        # the light whose keeper is known for it
    items: list = field(hash=False)   # (quantity for two people, unit or "", what)
    steps: list = field(hash=False)
    minutes: int = 30


RECIPES = [
    Recipe("leek soup", "Gull Rock", [(2, "", "leeks"), (3, "", "potatoes"), (4, "cups of", "water"), (1, "spoon of", "butter")],
           ["slice the leeks and wash out the sand", "melt the butter and soften the leeks in it", "add the potatoes and the water", "cook it until the potatoes break"], 35),
    Recipe("fish pie", "Otter Head", [(2, "", "fillets of cod"), (4, "", "potatoes"), (1, "cup of", "milk"), (2, "spoons of", "flour")],
           ["poach the cod in the milk", "thicken the milk with the flour", "mash the potatoes and spread them on top", "bake it until the crust is brown"], 50),
    Recipe("barley stew", "Cold Finger", [(1, "cup of", "barley"), (2, "", "carrots"), (1, "", "turnip"), (5, "cups of", "water")],
           ["soak the barley in the morning", "cut the carrots and the turnip small", "boil the barley in the water", "add the roots and simmer until all is soft"], 90),
    Recipe("onion tart", "Hollow Ness", [(3, "", "onions"), (2, "", "eggs"), (1, "cup of", "cream"), (2, "cups of", "flour")],
           ["rub the dough and let it rest", "fry the onions slowly until they are gold", "beat the eggs with the cream", "fill the dough and bake it on the lower shelf"], 60),
    Recipe("bean soup", "Long Sister", [(2, "cups of", "white beans"), (1, "", "onion"), (6, "cups of", "water"), (1, "sprig of", "thyme")],
           ["soak the beans overnight", "brown the onion in the pot", "add the beans, the water and the thyme", "cook it gently and salt it last"], 120),
    Recipe("potato bread", "Short Sister", [(2, "", "potatoes"), (3, "cups of", "flour"), (1, "spoon of", "yeast"), (1, "cup of", "water")],
           ["boil and mash the potatoes", "mix in the flour, the yeast and the water", "let the dough rise by the stove", "bake it until it sounds hollow"], 100),
    Recipe("oat cakes", "Candle Point", [(2, "cups of", "oats"), (1, "spoon of", "honey"), (1, "spoon of", "butter"), (1, "pinch of", "salt")],
           ["melt the butter with the honey", "stir in the oats and the salt", "press the dough flat and cut it", "bake the cakes until the edges are dark"], 25),
    Recipe("mutton stew", "Widow Stair", [(1, "piece of", "mutton"), (3, "", "carrots"), (2, "", "onions"), (5, "cups of", "water")],
           ["brown the mutton on all sides", "add the onions and let them sweat", "pour in the water and add the carrots", "simmer it under a lid until the meat falls apart"], 150),
    Recipe("crab soup", "Kelp End", [(2, "", "crabs"), (1, "", "onion"), (4, "cups of", "water"), (1, "cup of", "cream")],
           ["boil the crabs and pick the meat", "fry the onion in a little fat", "add the water and the shells and strain it", "stir in the meat and the cream"], 55),
    Recipe("smoked herring", "Northing", [(4, "", "herrings"), (2, "spoons of", "salt"), (1, "basket of", "oak chips"), (1, "spoon of", "pepper")],
           ["split the herrings and rub them with salt", "hang them in the wind for a day", "smoke them over the oak chips", "sprinkle the pepper over them"], 240),
    Recipe("apple bread", "Saltmouth", [(3, "cups of", "flour"), (2, "", "apples"), (1, "spoon of", "yeast"), (1, "cup of", "milk")],
           ["warm the milk and wake the yeast in it", "knead in the flour", "fold in the chopped apples", "bake it in a deep tin"], 80),
    Recipe("mussel broth", "Drum Island", [(3, "handfuls of", "mussels"), (1, "", "leek"), (3, "cups of", "water"), (1, "cup of", "cider")],
           ["scrub the mussels and throw away the open ones", "soften the leek in the pot", "pour in the cider and the water", "steam the mussels until they open"], 20),
]


@dataclass(frozen=True)
class Bird:
    name: str
    look: str
    food: str
    nest: str
    sound: str
    where: str  # a light's name


BIRDS = [
    Bird("puffin", "a black coat and an orange beak", "sand eels", "in a burrow", "growls like a small door", "Cold Finger"),
    Bird("gannet", "white wings with black tips", "herring", "on a bare ledge", "croaks all day", "Gull Rock"),
    Bird("cormorant", "dark green feathers", "flatfish", "on a heap of weed", "grunts when it lands", "Hollow Ness"),
    Bird("kittiwake", "grey wings and black feet", "small fish", "on a narrow shelf", "calls its own name", "Widow Stair"),
    Bird("eider", "a wedge-shaped head", "mussels", "in a hollow lined with down", "coos softly", "Kelp End"),
    Bird("tern", "a forked tail and a red beak", "sprats", "on the shingle", "screams at visitors", "Saltmouth"),
    Bird("storm petrel", "a black body and a white rump", "tiny shrimps", "between stones", "purrs at night", "Northing"),
    Bird("oystercatcher", "a long red beak", "limpets", "in a scrape on the beach", "pipes before the tide turns", "Drum Island"),
]


@dataclass(frozen=True)
class Ship:
    name: str
    kind: str
    cargo: str
    home: str
    masts: int


SHIPS = [
    Ship("Marigold", "supply boat", "oil, flour and post", "Merrow", 1),
    Ship("Patient Anne", "schooner", "timber", "Larchport", 2),
    Ship("Silver Thread", "brig", "wool", "Tamsin", 2),
    Ship("Old Tobias", "coal barge", "coal", "Grimwell", 1),
    Ship("Queen of Tamsin", "steamer", "passengers", "Tamsin", 2),
    Ship("Harvest Moon", "ketch", "apples", "Applewick", 2),
    Ship("Blue Lantern", "fishing boat", "herring", "Merrow", 1),
    Ship("Far Cathedral", "bark", "tea", "Larchport", 3),
]

FLAGS = [("blue", "all is well"), ("red", "the station needs help"), ("yellow", "send the doctor"), ("green", "send oil"),
         ("white", "there is post to collect"), ("black", "the landing is closed"), ("orange", "a ship is aground")]

BELLS = [(1, "a boat is coming in"), (2, "a boat is going out"), (3, "the fog is coming"), (4, "the fog has gone"),
         (5, "all keepers to the landing"), (6, "fire")]

SIGNS = [("the barograph falls fast", "a gale will come before night"), ("the gulls walk inland", "rain is near"),
         ("the far islands look close", "it will be wet tomorrow"), ("the swell comes without wind", "a storm is far out at sea"),
         ("the evening sky is red", "the morning will be fair"), ("the moon wears a ring", "snow or rain will come in two days"),
         ("smoke sinks to the ground", "the weather is about to break"), ("spiders mend their webs", "the day will be dry"),
         ("the kelp feels slippery", "the air is damp and fog is likely"), ("the petrels come close to the shore", "the sea is getting rough")]

PROVERBS = ["A trimmed wick is half a night's work.", "Count the oil before you count the stars.", "A bell that is not rung is only bronze.",
            "The sea reads every mistake aloud.", "Dry rope first, dry socks later.", "A clean lens forgives a small flame.",
            "Who measures twice rows once.", "Fog is only a cloud that has lost its way.", "The log remembers what the keeper forgets.",
            "Small leaks sink proud boats.", "Salt finds the screw you forgot to grease.", "A light is a promise made every night.",
            "Do not argue with the tide; write it down.", "Bread for one is bread for two when the boat is late.",
            "A scale too large hides the small weights.", "Round to the nearest, but look at the error."]

HARBOUR = dict(town="Merrow", isles="the Merrow Isles", boat="Marigold", boat_day="every second Tuesday", inn="the Bent Anchor",
               lights=len(LIGHTS), founded=1790)
