"""Number problems for the starter rows: word problems and unit conversions with their calculation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Story:
    """Describe one kind of word problem.

    Attributes:
        question: text with slots for numbers, people and things.
        draws: smallest and largest value of each number that is drawn at random.
        steps: calculations (result, left, operator, right); the last result is the answer. Numbers that the
            question shows may be results too, which keeps divisions free of remainders.
        reasoning: solution text with the same slots.
        things: nouns to choose from for the slot `thing`.
    """

    question: str
    draws: dict[str, tuple[int, int]]
    steps: tuple[tuple[str, str, str, str], ...]
    reasoning: str
    things: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Conversion:
    """Describe the conversion of one unit into another.

    Attributes:
        source: unit that is given, in the plural.
        target: unit that is asked for, in the plural.
        operator: `*` when the target is the smaller unit, `/` otherwise.
        factor: how many of the smaller unit make up the larger one.
        span: smallest and largest number of larger units.
        fact: the relation between both units as the start of a sentence.
        question: an everyday question with the slot `n`.
    """

    source: str
    target: str
    operator: str
    factor: int
    span: tuple[int, int]
    fact: str
    question: str


STORIES: tuple[Story, ...] = (
    Story(
        question=(
            "{name} buys {n} packs of {thing} with {k} in each pack and gives {g} of them to a "
            "friend. How many {thing} does {name} have left?"
        ),
        draws={"n": (3, 9), "k": (4, 12), "g": (3, 11)},
        steps=(
            ("t", "n", "*", "k"),
            ("r", "t", "-", "g"),
        ),
        reasoning=(
            "The packs hold {n} * {k} = {t} {thing} in total. After giving some away, {name} has "
            "{t} - {g} = {r} {thing} left."
        ),
        things=(
            "stickers",
            "pencils",
            "markers",
            "balloons",
            "badges",
        ),
    ),
    Story(
        question=(
            "A bakery makes {m} {thing} in the morning and {e} more in the afternoon. If it sells "
            "{s} of them that day, how many are left?"
        ),
        draws={"m": (24, 60), "e": (12, 40), "s": (20, 35)},
        steps=(
            ("t", "m", "+", "e"),
            ("r", "t", "-", "s"),
        ),
        reasoning=("The bakery makes {m} + {e} = {t} {thing} that day. When {s} are sold, {t} - {s} = {r} are left."),
        things=(
            "muffins",
            "bagels",
            "rolls",
            "cupcakes",
            "pretzels",
        ),
    ),
    Story(
        question=(
            "{name} earns ${w} per hour and works {h} hours a day. How many dollars does {name} earn in {d} days?"
        ),
        draws={"w": (9, 25), "h": (3, 8), "d": (3, 6)},
        steps=(
            ("p", "w", "*", "h"),
            ("r", "p", "*", "d"),
        ),
        reasoning=(
            "In one day {name} earns {w} * {h} = {p} dollars. In {d} days that adds up to {p} * {d} = {r} dollars."
        ),
    ),
    Story(
        question=(
            "A family buys {a} adult tickets for ${p} each and {c} child tickets for ${q} each to "
            "visit the {thing}. How many dollars do they pay in total?"
        ),
        draws={"a": (2, 4), "p": (10, 20), "c": (2, 6), "q": (4, 9)},
        steps=(
            ("x", "a", "*", "p"),
            ("y", "c", "*", "q"),
            ("r", "x", "+", "y"),
        ),
        reasoning=(
            "The adult tickets cost {a} * {p} = {x} dollars and the child tickets cost {c} * {q} = "
            "{y} dollars. Together that is {x} + {y} = {r} dollars."
        ),
        things=(
            "zoo",
            "aquarium",
            "castle",
            "science museum",
            "botanical garden",
        ),
    ),
    Story(
        question=(
            "{name} has ${s} and wants to buy a {thing} for ${c}. If {name} saves ${w} every week, "
            "how many weeks will it take to have enough?"
        ),
        draws={"s": (15, 60), "w": (5, 15), "k": (3, 12)},
        steps=(
            ("need", "w", "*", "k"),
            ("c", "s", "+", "need"),
            ("r", "need", "/", "w"),
        ),
        reasoning=(
            "{name} still needs {c} - {s} = {need} dollars. Saving {w} dollars a week, that takes "
            "{need} / {w} = {r} weeks."
        ),
        things=(
            "guitar",
            "bicycle",
            "tent",
            "camera",
            "skateboard",
        ),
    ),
    Story(
        question=(
            "A teacher shares {t} {thing} equally among {n} children and then gives each child {x} "
            "more. How many {thing} does each child have now?"
        ),
        draws={"n": (4, 12), "k": (3, 9), "x": (2, 5)},
        steps=(
            ("t", "n", "*", "k"),
            ("q", "t", "/", "n"),
            ("r", "q", "+", "x"),
        ),
        reasoning=(
            "Each child first gets {t} / {n} = {q} {thing}. With the extra ones, each child has {q} "
            "+ {x} = {r} {thing}."
        ),
        things=(
            "crayons",
            "beads",
            "cards",
            "raisins",
            "stickers",
        ),
    ),
    Story(
        question=(
            "A train travels at {v} kilometers per hour for {h} hours and then covers another {d} "
            "kilometers more slowly. How many kilometers does it travel in total?"
        ),
        draws={"v": (60, 120), "h": (2, 5), "d": (15, 60)},
        steps=(
            ("a", "v", "*", "h"),
            ("r", "a", "+", "d"),
        ),
        reasoning=(
            "In the first part the train covers {v} * {h} = {a} kilometers. Adding the slow part "
            "gives {a} + {d} = {r} kilometers."
        ),
    ),
    Story(
        question=(
            "A rectangular {thing} is {l} meters long and {w} meters wide. How many meters of fence "
            "are needed to go all the way around it?"
        ),
        draws={"l": (12, 40), "w": (5, 11), "two": (2, 2)},
        steps=(
            ("s", "l", "+", "w"),
            ("r", "two", "*", "s"),
        ),
        reasoning=(
            "One long side and one short side are {l} + {w} = {s} meters together. The whole way "
            "around is {two} * {s} = {r} meters."
        ),
        things=(
            "garden",
            "playground",
            "field",
            "yard",
            "vegetable patch",
        ),
    ),
    Story(
        question=(
            "{name} wants to cover a floor that is {l} meters long and {w} meters wide. The {thing} "
            "costs ${p} per square meter. How many dollars does it cost in total?"
        ),
        draws={"l": (3, 9), "w": (2, 6), "p": (8, 20)},
        steps=(
            ("a", "l", "*", "w"),
            ("r", "a", "*", "p"),
        ),
        reasoning=(
            "The floor has an area of {l} * {w} = {a} square meters. At {p} dollars per square "
            "meter, the cost is {a} * {p} = {r} dollars."
        ),
        things=(
            "carpet",
            "tile",
            "wood flooring",
            "cork",
        ),
    ),
    Story(
        question=(
            "{name} is reading a {thing} with {p} pages and reads {r} pages a day. How many pages "
            "are left after {d} days?"
        ),
        draws={"p": (220, 420), "r": (15, 30), "d": (3, 7)},
        steps=(
            ("t", "r", "*", "d"),
            ("left", "p", "-", "t"),
        ),
        reasoning=("In {d} days {name} reads {r} * {d} = {t} pages. That leaves {p} - {t} = {left} pages to read."),
        things=(
            "novel",
            "biography",
            "travel book",
            "detective story",
        ),
    ),
    Story(
        question=(
            "A parking lot has {r} rows with {s} spaces in each row. If {e} spaces are empty, how "
            "many cars are parked there?"
        ),
        draws={"r": (5, 12), "s": (8, 20), "e": (7, 30)},
        steps=(
            ("t", "r", "*", "s"),
            ("c", "t", "-", "e"),
        ),
        reasoning=(
            "The lot has {r} * {s} = {t} spaces. Since {e} of them are empty, {t} - {e} = {c} cars are parked there."
        ),
    ),
    Story(
        question=(
            "A farmer collects {a} eggs on Monday and {b} eggs on Tuesday and packs them all in "
            "boxes of {n}. How many boxes does the farmer fill?"
        ),
        draws={"a": (20, 40), "n": (6, 12), "k": (8, 15)},
        steps=(
            ("t", "n", "*", "k"),
            ("b", "t", "-", "a"),
            ("r", "t", "/", "n"),
        ),
        reasoning=(
            "Together there are {a} + {b} = {t} eggs. Packed in boxes of {n}, they fill {t} / {n} = {r} boxes."
        ),
    ),
    Story(
        question=(
            "At dawn it is {t} degrees in {city}. By noon the temperature rises by {a} degrees, and "
            "by evening it falls by {b} degrees. How many degrees is it in the evening?"
        ),
        draws={"t": (8, 18), "a": (6, 14), "b": (3, 9)},
        steps=(
            ("n", "t", "+", "a"),
            ("r", "n", "-", "b"),
        ),
        reasoning="At noon it is {t} + {a} = {n} degrees. In the evening it is {n} - {b} = {r} degrees.",
    ),
    Story(
        question=(
            "A bus leaves {city} with {p} passengers. At the first stop {g} people get off and {o} "
            "get on. How many passengers are on the bus now?"
        ),
        draws={"p": (20, 45), "g": (5, 15), "o": (3, 18)},
        steps=(
            ("x", "p", "-", "g"),
            ("r", "x", "+", "o"),
        ),
        reasoning=(
            "After {g} people get off, {p} - {g} = {x} passengers remain. When {o} people get on, "
            "there are {x} + {o} = {r} passengers."
        ),
    ),
    Story(
        question=("{name} is {a} years old and {other} is {k} years older. How old will {other} be in {y} years?"),
        draws={"a": (7, 30), "k": (2, 12), "y": (3, 15)},
        steps=(
            ("b", "a", "+", "k"),
            ("r", "b", "+", "y"),
        ),
        reasoning=(
            "{other} is {a} + {k} = {b} years old now. In {y} years {other} will be {b} + {y} = {r} years old."
        ),
    ),
    Story(
        question=(
            "{name} buys {n} {thing} for ${p} each and pays with a ${bill} bill. How many dollars "
            "of change does {name} get?"
        ),
        draws={"n": (2, 8), "p": (3, 10), "bill": (100, 100)},
        steps=(
            ("t", "n", "*", "p"),
            ("r", "bill", "-", "t"),
        ),
        reasoning="The {thing} cost {n} * {p} = {t} dollars. The change is {bill} - {t} = {r} dollars.",
        things=(
            "notebooks",
            "candles",
            "mugs",
            "plants",
            "sandwiches",
        ),
    ),
    Story(
        question=(
            "A recipe for {thing} needs {f} cups of flour and {s} cups of sugar. How many cups of "
            "these two ingredients are needed for {b} batches?"
        ),
        draws={"f": (4, 7), "s": (2, 3), "b": (3, 9)},
        steps=(
            ("t", "f", "+", "s"),
            ("r", "t", "*", "b"),
        ),
        reasoning="One batch needs {f} + {s} = {t} cups. For {b} batches that makes {t} * {b} = {r} cups.",
        things=(
            "cookies",
            "shortbread",
            "gingerbread",
            "muffins",
        ),
    ),
    Story(
        question=(
            "{name} runs {a} kilometers on each of {d} weekdays and {b} kilometers on Saturday. How "
            "many kilometers does {name} run in that week?"
        ),
        draws={"a": (4, 9), "d": (3, 5), "b": (8, 20)},
        steps=(
            ("t", "a", "*", "d"),
            ("r", "t", "+", "b"),
        ),
        reasoning=(
            "On weekdays {name} runs {a} * {d} = {t} kilometers. Together with Saturday that is {t} "
            "+ {b} = {r} kilometers."
        ),
    ),
    Story(
        question=(
            "A library has {b} {thing}. On Monday it lends out {l}, and on Tuesday {r} come back. "
            "How many {thing} are in the library then?"
        ),
        draws={"b": (150, 400), "l": (30, 80), "r": (12, 28)},
        steps=(
            ("x", "b", "-", "l"),
            ("n", "x", "+", "r"),
        ),
        reasoning=("After Monday there are {b} - {l} = {x} {thing}. On Tuesday the number grows to {x} + {r} = {n}."),
        things=(
            "comics",
            "cookbooks",
            "audiobooks",
            "children's books",
        ),
    ),
    Story(
        question=(
            "On a school trip, {s} students and {t} teachers travel in vans with {v} seats each, "
            "and every seat is taken. How many vans are there?"
        ),
        draws={"t": (3, 6), "v": (8, 12), "k": (3, 9)},
        steps=(
            ("p", "v", "*", "k"),
            ("s", "p", "-", "t"),
            ("r", "p", "/", "v"),
        ),
        reasoning=("In total {s} + {t} = {p} people travel. With {v} in each van, there are {p} / {v} = {r} vans."),
    ),
    Story(
        question=(
            "A water tank holds {c} liters, but it leaks {l} liters every hour. How many liters are "
            "left after {h} hours?"
        ),
        draws={"c": (200, 400), "l": (8, 20), "h": (3, 9)},
        steps=(
            ("x", "l", "*", "h"),
            ("r", "c", "-", "x"),
        ),
        reasoning="In {h} hours the tank loses {l} * {h} = {x} liters. So {c} - {x} = {r} liters are left.",
    ),
    Story(
        question=(
            "A {thing} normally costs ${p}, but today it is ${d} cheaper. How many dollars do {n} of them cost today?"
        ),
        draws={"p": (25, 60), "d": (3, 15), "n": (2, 6)},
        steps=(
            ("x", "p", "-", "d"),
            ("r", "x", "*", "n"),
        ),
        reasoning=(
            "Today one {thing} costs {p} - {d} = {x} dollars. Buying {n} of them costs {x} * {n} = {r} dollars."
        ),
        things=(
            "sweater",
            "backpack",
            "lamp",
            "board game",
            "desk chair",
        ),
    ),
    Story(
        question=(
            "{name} collected {t} {thing} and gave half of them to {other}. Later {name} found {m} "
            "more. How many {thing} does {name} have now?"
        ),
        draws={"h": (6, 25), "m": (4, 15), "two": (2, 2)},
        steps=(
            ("t", "two", "*", "h"),
            ("half", "t", "/", "two"),
            ("r", "half", "+", "m"),
        ),
        reasoning=(
            "Half of the collection is {t} / {two} = {half} {thing}, which {name} keeps. With the "
            "new ones, {name} has {half} + {m} = {r} {thing}."
        ),
        things=(
            "shells",
            "marbles",
            "stones",
            "coins",
            "feathers",
        ),
    ),
    Story(
        question=(
            "{name} picked {a} {thing}, and {other} picked {k} times as many. How many {thing} did they pick together?"
        ),
        draws={"a": (8, 25), "k": (2, 5)},
        steps=(
            ("b", "a", "*", "k"),
            ("r", "a", "+", "b"),
        ),
        reasoning="{other} picked {a} * {k} = {b} {thing}. Together they picked {a} + {b} = {r} {thing}.",
        things=(
            "apples",
            "plums",
            "pears",
            "cherries",
            "peaches",
        ),
    ),
    Story(
        question=(
            "In three rounds of a game {name} scored {a}, {b} and {c} points, while {other} scored "
            "{o} points in total. How many more points did {name} score?"
        ),
        draws={"a": (12, 20), "b": (10, 18), "c": (11, 19), "o": (15, 30)},
        steps=(
            ("t", "a", "+", "b"),
            ("u", "t", "+", "c"),
            ("r", "u", "-", "o"),
        ),
        reasoning=(
            "{name} scored {a} + {b} + {c} = {u} points in total. That is {u} - {o} = {r} points more than {other}."
        ),
    ),
    Story(
        question="{name} got {a}, {b} and {c} points in three tests. What is the average score?",
        draws={"m": (70, 88), "down": (2, 9), "up": (3, 9), "three": (3, 3)},
        steps=(
            ("a", "m", "-", "down"),
            ("b", "m", "+", "up"),
            ("s", "m", "*", "three"),
            ("x", "s", "-", "a"),
            ("c", "x", "-", "b"),
            ("r", "s", "/", "three"),
        ),
        reasoning=(
            "The scores add up to {a} + {b} + {c} = {s}. Divided by the number of tests, the "
            "average is {s} / {three} = {r}."
        ),
    ),
    Story(
        question=(
            "A ribbon is {l} centimeters long and is cut into pieces of {p} centimeters. If {u} "
            "pieces are used for gifts, how many pieces are left?"
        ),
        draws={"p": (5, 15), "k": (9, 20), "u": (3, 7)},
        steps=(
            ("l", "p", "*", "k"),
            ("n", "l", "/", "p"),
            ("r", "n", "-", "u"),
        ),
        reasoning=(
            "Cutting the ribbon gives {l} / {p} = {n} pieces. After {u} are used, {n} - {u} = {r} pieces are left."
        ),
    ),
    Story(
        question=("A {thing} has {r} rows of {s} seats. If {o} people come to the show, how many seats stay empty?"),
        draws={"r": (10, 20), "s": (12, 25), "o": (60, 115)},
        steps=(
            ("t", "r", "*", "s"),
            ("e", "t", "-", "o"),
        ),
        reasoning=(
            "There are {r} * {s} = {t} seats. With {o} people in the audience, {t} - {o} = {e} seats stay empty."
        ),
        things=(
            "theater",
            "cinema",
            "concert hall",
            "lecture hall",
        ),
    ),
    Story(
        question=(
            "A {thing} costs ${m} per month, and there is a joining fee of ${f}. How many dollars "
            "does {name} pay for the first {n} months, including the fee?"
        ),
        draws={"m": (12, 40), "f": (10, 45), "n": (3, 12)},
        steps=(
            ("t", "m", "*", "n"),
            ("r", "t", "+", "f"),
        ),
        reasoning=(
            "The monthly payments come to {m} * {n} = {t} dollars. With the joining fee, {name} "
            "pays {t} + {f} = {r} dollars."
        ),
        things=(
            "gym membership",
            "dance class",
            "climbing club",
            "language course",
        ),
    ),
    Story(
        question=(
            "A dinner for {n} friends costs ${c}, and they add a tip of ${t}. If they share "
            "everything equally, how many dollars does each of them pay?"
        ),
        draws={"n": (3, 8), "k": (14, 30), "t": (6, 15)},
        steps=(
            ("s", "n", "*", "k"),
            ("c", "s", "-", "t"),
            ("r", "s", "/", "n"),
        ),
        reasoning=(
            "With the tip, the dinner costs {c} + {t} = {s} dollars. Shared among {n} friends, each "
            "pays {s} / {n} = {r} dollars."
        ),
    ),
    Story(
        question=(
            "A factory has {m} machines, and each machine makes {p} {thing} per hour. How many "
            "{thing} does the factory make in {h} hours?"
        ),
        draws={"m": (3, 9), "p": (10, 30), "h": (2, 8)},
        steps=(
            ("x", "m", "*", "p"),
            ("r", "x", "*", "h"),
        ),
        reasoning=(
            "In one hour the machines make {m} * {p} = {x} {thing}. In {h} hours they make {x} * {h} = {r} {thing}."
        ),
        things=(
            "toys",
            "bottles",
            "chairs",
            "umbrellas",
            "lamps",
        ),
    ),
    Story(
        question=(
            "The battery of a {thing} is at {b} percent. Each hour of use takes {u} percent. What "
            "percentage is left after {h} hours?"
        ),
        draws={"b": (70, 98), "u": (6, 12), "h": (2, 5)},
        steps=(
            ("x", "u", "*", "h"),
            ("r", "b", "-", "x"),
        ),
        reasoning=(
            "In {h} hours the device uses {u} * {h} = {x} percent. The battery then has {b} - {x} = {r} percent left."
        ),
        things=(
            "phone",
            "tablet",
            "laptop",
            "camera",
        ),
    ),
    Story(
        question=(
            "{name} plants {n} rows of tomatoes with {k} plants in each row, but {d} plants do not "
            "survive. If each remaining plant gives {f} tomatoes, how many tomatoes does {name} "
            "harvest?"
        ),
        draws={"n": (3, 6), "k": (4, 8), "d": (2, 5), "f": (5, 12)},
        steps=(
            ("t", "n", "*", "k"),
            ("x", "t", "-", "d"),
            ("r", "x", "*", "f"),
        ),
        reasoning=(
            "There are {n} * {k} = {t} plants at first, and {t} - {d} = {x} survive. They give {x} "
            "* {f} = {r} tomatoes."
        ),
    ),
    Story(
        question="{name} has {q} quarters and {d} dimes in a jar. How many cents is that in total?",
        draws={"q": (3, 12), "d": (4, 15), "v": (25, 25), "w": (10, 10)},
        steps=(
            ("x", "q", "*", "v"),
            ("y", "d", "*", "w"),
            ("r", "x", "+", "y"),
        ),
        reasoning=(
            "The quarters are worth {q} * {v} = {x} cents and the dimes are worth {d} * {w} = {y} "
            "cents. In total that is {x} + {y} = {r} cents."
        ),
    ),
    Story(
        question=(
            "A movie lasts {m} minutes. Before it, the cinema shows {a} trailers of {b} minutes "
            "each. How many minutes does everything take?"
        ),
        draws={"m": (85, 140), "a": (3, 6), "b": (2, 4)},
        steps=(
            ("x", "a", "*", "b"),
            ("r", "m", "+", "x"),
        ),
        reasoning=(
            "The trailers take {a} * {b} = {x} minutes. Together with the movie that is {m} + {x} = {r} minutes."
        ),
    ),
    Story(
        question=(
            "A candle is {h} centimeters tall and becomes {b} centimeters shorter every hour. How "
            "tall is it, in centimeters, after burning for {t} hours?"
        ),
        draws={"h": (22, 36), "b": (2, 4), "t": (3, 5)},
        steps=(
            ("x", "b", "*", "t"),
            ("r", "h", "-", "x"),
        ),
        reasoning=(
            "In {t} hours the candle loses {b} * {t} = {x} centimeters. It is then {h} - {x} = {r} centimeters tall."
        ),
    ),
    Story(
        question=(
            "An empty crate weighs {c} kilograms. It is filled with {n} bags of {thing} that weigh "
            "{w} kilograms each. How many kilograms does the full crate weigh?"
        ),
        draws={"c": (4, 12), "n": (5, 14), "w": (3, 8)},
        steps=(
            ("x", "n", "*", "w"),
            ("r", "x", "+", "c"),
        ),
        reasoning=(
            "The bags weigh {n} * {w} = {x} kilograms. With the crate, the weight is {x} + {c} = {r} kilograms."
        ),
        things=(
            "rice",
            "flour",
            "sand",
            "potatoes",
            "oranges",
        ),
    ),
    Story(
        question=(
            "{name} lives {f} floors above the street, and there are {s} steps between floors. If "
            "{name} climbs up {t} times a day, how many steps is that?"
        ),
        draws={"f": (3, 8), "s": (12, 20), "t": (2, 4)},
        steps=(
            ("x", "f", "*", "s"),
            ("r", "x", "*", "t"),
        ),
        reasoning="One climb has {f} * {s} = {x} steps. Climbing {t} times makes {x} * {t} = {r} steps.",
    ),
    Story(
        question=(
            "{name} has {p} math problems to solve. After finishing {m} of them, {name} splits the "
            "rest equally over {d} days. How many problems are left for each day?"
        ),
        draws={"m": (8, 20), "d": (2, 6), "k": (4, 11)},
        steps=(
            ("x", "d", "*", "k"),
            ("p", "x", "+", "m"),
            ("r", "x", "/", "d"),
        ),
        reasoning=(
            "After the first part, {p} - {m} = {x} problems remain. Over {d} days, that is {x} / "
            "{d} = {r} problems for each day."
        ),
    ),
    Story(
        question="{name} has {a} {thing}, and {other} has {d} fewer. How many {thing} do they have together?",
        draws={"a": (25, 70), "d": (5, 20)},
        steps=(
            ("b", "a", "-", "d"),
            ("r", "a", "+", "b"),
        ),
        reasoning="{other} has {a} - {d} = {b} {thing}. Together they have {a} + {b} = {r} {thing}.",
        things=(
            "stamps",
            "postcards",
            "trading cards",
            "model cars",
        ),
    ),
    Story(
        question=(
            "A painter has to paint {t} square meters of wall and has already done {d} square "
            "meters. If one can of paint covers {c} square meters, how many cans are needed for the "
            "rest?"
        ),
        draws={"c": (6, 12), "k": (3, 9), "d": (15, 40)},
        steps=(
            ("x", "c", "*", "k"),
            ("t", "x", "+", "d"),
            ("r", "x", "/", "c"),
        ),
        reasoning="There are {t} - {d} = {x} square meters left to paint. That takes {x} / {c} = {r} cans.",
    ),
    Story(
        question=(
            "A shop sold {a} {thing} on Monday, twice as many on Tuesday, and {b} on Wednesday. How "
            "many {thing} did it sell over the three days?"
        ),
        draws={"a": (14, 35), "b": (10, 40), "two": (2, 2)},
        steps=(
            ("x", "a", "*", "two"),
            ("y", "a", "+", "x"),
            ("r", "y", "+", "b"),
        ),
        reasoning=(
            "On Tuesday the shop sold {a} * {two} = {x} {thing}. Over the three days it sold {a} + "
            "{x} + {b} = {r} {thing}."
        ),
        things=(
            "lamps",
            "kites",
            "hats",
            "magazines",
            "watermelons",
        ),
    ),
    Story(
        question=(
            "At a charity run, {n} runners raise ${p} each. The organizers spend ${c} on water and "
            "signs. How many dollars are left for the charity?"
        ),
        draws={"n": (20, 50), "p": (8, 20), "c": (45, 120)},
        steps=(
            ("x", "n", "*", "p"),
            ("r", "x", "-", "c"),
        ),
        reasoning=("The runners raise {n} * {p} = {x} dollars. After the costs, {x} - {c} = {r} dollars are left."),
    ),
    Story(
        question=(
            "{name} has {a} fish in a tank, buys {n} bags with {k} fish in each, and gives {g} fish "
            "to {other}. How many fish does {name} have now?"
        ),
        draws={"a": (5, 12), "n": (2, 4), "k": (3, 6), "g": (2, 5)},
        steps=(
            ("x", "n", "*", "k"),
            ("y", "a", "+", "x"),
            ("r", "y", "-", "g"),
        ),
        reasoning=(
            "The bags hold {n} * {k} = {x} fish, so there are {a} + {x} = {y} fish in the tank. "
            "After the gift, {y} - {g} = {r} fish remain."
        ),
    ),
    Story(
        question=(
            "A cycling tour is {t} kilometers long. {name} rides {a} kilometers on the first day "
            "and wants to cover the rest in {d} equal days. How many kilometers is that per day?"
        ),
        draws={"a": (40, 80), "d": (3, 6), "k": (35, 60)},
        steps=(
            ("x", "d", "*", "k"),
            ("t", "x", "+", "a"),
            ("r", "x", "/", "d"),
        ),
        reasoning=(
            "After the first day, {t} - {a} = {x} kilometers remain. Spread over {d} days, that is "
            "{x} / {d} = {r} kilometers per day."
        ),
    ),
    Story(
        question=(
            "{name} types {w} words per minute and has to write a report of {e} words. How many "
            "words are still missing after {m} minutes?"
        ),
        draws={"w": (20, 40), "e": (550, 900), "m": (5, 12)},
        steps=(
            ("x", "w", "*", "m"),
            ("r", "e", "-", "x"),
        ),
        reasoning=("In {m} minutes {name} types {w} * {m} = {x} words. So {e} - {x} = {r} words are still missing."),
    ),
)


CONVERSIONS: tuple[Conversion, ...] = (
    Conversion(
        source="hours",
        target="minutes",
        operator="*",
        factor=60,
        span=(2, 15),
        fact="There are 60 minutes in one hour",
        question="A train ride takes {n} hours. How many minutes is that?",
    ),
    Conversion(
        source="minutes",
        target="hours",
        operator="/",
        factor=60,
        span=(2, 12),
        fact="One hour has 60 minutes",
        question="A film marathon lasts {n} minutes. How many hours is that?",
    ),
    Conversion(
        source="minutes",
        target="seconds",
        operator="*",
        factor=60,
        span=(2, 20),
        fact="Each minute has 60 seconds",
        question="I boil eggs for {n} minutes. For how many seconds do they cook?",
    ),
    Conversion(
        source="seconds",
        target="minutes",
        operator="/",
        factor=60,
        span=(2, 15),
        fact="There are 60 seconds in a minute",
        question="A song lasts {n} seconds. How many minutes is that?",
    ),
    Conversion(
        source="days",
        target="hours",
        operator="*",
        factor=24,
        span=(2, 9),
        fact="A day has 24 hours",
        question="The ferry trip takes {n} days. How many hours is that?",
    ),
    Conversion(
        source="hours",
        target="days",
        operator="/",
        factor=24,
        span=(2, 8),
        fact="There are 24 hours in a day",
        question="A machine has been running for {n} hours without a break. How many days is that?",
    ),
    Conversion(
        source="weeks",
        target="days",
        operator="*",
        factor=7,
        span=(2, 15),
        fact="A week has 7 days",
        question="My vacation lasts {n} weeks. How many days do I have off?",
    ),
    Conversion(
        source="days",
        target="weeks",
        operator="/",
        factor=7,
        span=(2, 12),
        fact="There are 7 days in a week",
        question="The course runs for {n} days in a row. How many weeks is that?",
    ),
    Conversion(
        source="years",
        target="months",
        operator="*",
        factor=12,
        span=(2, 10),
        fact="A year has 12 months",
        question="A phone contract runs for {n} years. How many months is that?",
    ),
    Conversion(
        source="months",
        target="years",
        operator="/",
        factor=12,
        span=(2, 9),
        fact="There are 12 months in a year",
        question="A puppy is now {n} months old. How many years is that?",
    ),
    Conversion(
        source="decades",
        target="years",
        operator="*",
        factor=10,
        span=(2, 9),
        fact="A decade is 10 years",
        question="The company is {n} decades old. How many years has it existed?",
    ),
    Conversion(
        source="centuries",
        target="years",
        operator="*",
        factor=100,
        span=(2, 12),
        fact="A century is 100 years",
        question="The tree is about {n} centuries old. How many years is that?",
    ),
    Conversion(
        source="kilometers",
        target="meters",
        operator="*",
        factor=1000,
        span=(2, 20),
        fact="One kilometer is 1000 meters",
        question="My way to work is {n} kilometers long. How many meters is that?",
    ),
    Conversion(
        source="meters",
        target="kilometers",
        operator="/",
        factor=1000,
        span=(2, 18),
        fact="There are 1000 meters in a kilometer",
        question="The race is {n} meters long. How many kilometers is that?",
    ),
    Conversion(
        source="meters",
        target="centimeters",
        operator="*",
        factor=100,
        span=(2, 25),
        fact="One meter is 100 centimeters",
        question="A rope is {n} meters long. How many centimeters is that?",
    ),
    Conversion(
        source="centimeters",
        target="meters",
        operator="/",
        factor=100,
        span=(2, 15),
        fact="There are 100 centimeters in a meter",
        question="A hallway is {n} centimeters long. How many meters is that?",
    ),
    Conversion(
        source="centimeters",
        target="millimeters",
        operator="*",
        factor=10,
        span=(3, 60),
        fact="One centimeter is 10 millimeters",
        question="The pencil is {n} centimeters long. How many millimeters is that?",
    ),
    Conversion(
        source="kilograms",
        target="grams",
        operator="*",
        factor=1000,
        span=(2, 15),
        fact="One kilogram is 1000 grams",
        question="I bought {n} kilograms of potatoes. How many grams is that?",
    ),
    Conversion(
        source="grams",
        target="kilograms",
        operator="/",
        factor=1000,
        span=(2, 12),
        fact="There are 1000 grams in a kilogram",
        question="A parcel weighs {n} grams. How many kilograms is that?",
    ),
    Conversion(
        source="tonnes",
        target="kilograms",
        operator="*",
        factor=1000,
        span=(2, 12),
        fact="One tonne is 1000 kilograms",
        question="A truck carries {n} tonnes of gravel. How many kilograms is that?",
    ),
    Conversion(
        source="liters",
        target="milliliters",
        operator="*",
        factor=1000,
        span=(2, 10),
        fact="One liter is 1000 milliliters",
        question="The bucket holds {n} liters. How many milliliters is that?",
    ),
    Conversion(
        source="milliliters",
        target="liters",
        operator="/",
        factor=1000,
        span=(2, 9),
        fact="There are 1000 milliliters in a liter",
        question="We made {n} milliliters of lemonade. How many liters is that?",
    ),
    Conversion(
        source="feet",
        target="inches",
        operator="*",
        factor=12,
        span=(2, 12),
        fact="One foot is 12 inches",
        question="The table is {n} feet long. How many inches is that?",
    ),
    Conversion(
        source="inches",
        target="feet",
        operator="/",
        factor=12,
        span=(2, 10),
        fact="There are 12 inches in a foot",
        question="A plank measures {n} inches. How many feet is that?",
    ),
    Conversion(
        source="yards",
        target="feet",
        operator="*",
        factor=3,
        span=(4, 40),
        fact="One yard is 3 feet",
        question="The garden path is {n} yards long. How many feet is that?",
    ),
    Conversion(
        source="pounds",
        target="ounces",
        operator="*",
        factor=16,
        span=(2, 10),
        fact="One pound is 16 ounces",
        question="A bag of rice weighs {n} pounds. How many ounces is that?",
    ),
    Conversion(
        source="gallons",
        target="quarts",
        operator="*",
        factor=4,
        span=(2, 15),
        fact="One gallon is 4 quarts",
        question="The camping canister holds {n} gallons. How many quarts is that?",
    ),
    Conversion(
        source="dollars",
        target="cents",
        operator="*",
        factor=100,
        span=(2, 30),
        fact="One dollar is 100 cents",
        question="I saved {n} dollars. How many cents is that?",
    ),
    Conversion(
        source="quarters",
        target="dollars",
        operator="/",
        factor=4,
        span=(3, 15),
        fact="Four quarters make one dollar",
        question="I found {n} quarters in a drawer. How many dollars is that?",
    ),
    Conversion(
        source="dozen eggs",
        target="eggs",
        operator="*",
        factor=12,
        span=(2, 12),
        fact="A dozen is 12",
        question="The hotel kitchen ordered {n} dozen eggs. How many eggs is that?",
    ),
)
