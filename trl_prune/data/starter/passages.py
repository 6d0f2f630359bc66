"""Passages to read and lists to put in order for the starter rows."""

# Passage with slots, then per question: slot that is asked for, question, answer sentence.
PASSAGES: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        ("{name} from {city} has booked a room for {date}. The total price is {price}, payable on arrival."),
        (
            (
                "name",
                "Who booked the room?",
                "The room was booked by {name}, who comes from {city}.",
            ),
            (
                "city",
                "Which city is the guest from?",
                "According to the booking, the guest comes from {city}.",
            ),
            (
                "price",
                "How much does the room cost in total?",
                "The room costs {price} in total, and the guest pays on arrival.",
            ),
        ),
    ),
    (
        ("The annual {festival} takes place in {city} on {date}. Tickets cost {price} and the gates open at {time}."),
        (
            (
                "date",
                "On what date does the event take place?",
                "The event takes place on {date}, when the {festival} is held in {city}.",
            ),
            (
                "time",
                "At what time do the gates open?",
                "The gates open at {time}, according to the announcement.",
            ),
            (
                "festival",
                "What is the event called?",
                "The event is called the {festival}, and it takes place every year.",
            ),
        ),
    ),
    (
        ("Dear {name}, your {item} has been sent from our warehouse in {city} and should arrive by {date}."),
        (
            (
                "item",
                "What was sent?",
                "The message says that the {item} was sent to {name}.",
            ),
            (
                "city",
                "Where is the warehouse?",
                "The warehouse is in {city}, which is where the parcel was sent from.",
            ),
            (
                "date",
                "By when should the parcel arrive?",
                "The parcel should arrive by {date}, so {name} can expect it then.",
            ),
        ),
    ),
    (
        ("Yesterday {name} sold an old {item} at the flea market in {city} for {price}, twice as much as expected."),
        (
            (
                "price",
                "For how much was the object sold?",
                "The {item} was sold for {price}, which was twice as much as expected.",
            ),
            (
                "name",
                "Who sold something at the flea market?",
                "The seller was {name}, who offered an old {item} there.",
            ),
            (
                "item",
                "What was sold?",
                "An old {item} was sold at the flea market in {city}.",
            ),
        ),
    ),
    (
        ("Meeting notes: {name} will present the new budget on {date} at {time}. {other} will take the minutes."),
        (
            (
                "name",
                "Who will present the budget?",
                "The budget will be presented by {name}, while {other} takes the minutes.",
            ),
            (
                "other",
                "Who will take the minutes?",
                "The minutes will be taken by {other} during the presentation.",
            ),
            (
                "time",
                "At what time is the presentation?",
                "The presentation starts at {time} on {date}.",
            ),
        ),
    ),
    (
        (
            "{company} opened its first shop in {city} in {year}. Today the firm, led by {name}, "
            "has over two hundred employees."
        ),
        (
            (
                "company",
                "What is the name of the company?",
                "The company is called {company}, and it has over two hundred employees today.",
            ),
            (
                "year",
                "In which year did the first shop open?",
                "The first shop opened in {year}, in the city of {city}.",
            ),
            (
                "name",
                "Who leads the firm today?",
                "Today the firm is led by {name}, according to the text.",
            ),
        ),
    ),
    (
        (
            "Flight {flight} to {city} has been delayed. The new departure time is {time}, and "
            "boarding starts at gate {gate}."
        ),
        (
            (
                "flight",
                "Which flight is delayed?",
                "The delayed flight is {flight}, which is going to {city}.",
            ),
            (
                "city",
                "Where is the flight going?",
                "The flight is going to {city}, and it leaves later than planned.",
            ),
            (
                "time",
                "What is the new departure time?",
                "The new departure time is {time}, since the flight has been delayed.",
            ),
        ),
    ),
    (
        (
            "Lost: a gray cat with white paws, last seen near the {place} in {city}. If you find "
            "it, please call {name} at {phone}."
        ),
        (
            (
                "place",
                "Where was the cat last seen?",
                "The cat was last seen near the {place} in {city}.",
            ),
            (
                "phone",
                "Which number should a finder call?",
                "A finder should call {phone} and ask for {name}.",
            ),
            (
                "name",
                "Whom should a finder call?",
                "A finder should call {name}, who has left a phone number in the notice.",
            ),
        ),
    ),
    (
        ("The painter {name} was born in {city} in {year} and later became known for large pictures of the sea."),
        (
            (
                "name",
                "What is the name of the painter?",
                "The painter is called {name} and became known for pictures of the sea.",
            ),
            (
                "city",
                "Where was the painter born?",
                "The painter was born in {city}, as the first part of the text says.",
            ),
            (
                "year",
                "In which year was the painter born?",
                "The painter was born in {year}, in the city of {city}.",
            ),
        ),
    ),
    (
        "Invoice: one {item}, {price}. Please pay by {date}. Contact: {name}, {company}.",
        (
            (
                "item",
                "What is the invoice for?",
                "The invoice is for one {item}, sold by {company}.",
            ),
            (
                "date",
                "What is the payment deadline?",
                "The invoice for the {item} has to be paid by {date}.",
            ),
            (
                "company",
                "Which company sent the invoice?",
                "The invoice was sent by {company}, and {name} is the contact person.",
            ),
        ),
    ),
    (
        (
            "Hi {name}, the choir rehearsal has moved to the {place}. We start at {time} on {date}, "
            "so please be early. See you, {other}"
        ),
        (
            (
                "place",
                "Where does the rehearsal take place?",
                "The rehearsal takes place at the {place}, because it has been moved.",
            ),
            (
                "other",
                "Who wrote the message?",
                "The message was written by {other}, who signed it at the end.",
            ),
            (
                "date",
                "On which date is the rehearsal?",
                "The rehearsal is on {date} and starts at {time}, as the message to {name} says.",
            ),
        ),
    ),
    (
        (
            "{name} adopted a dog called {pet} from a shelter in {city}. The adoption fee was "
            "{price}, including the first vaccinations."
        ),
        (
            (
                "pet",
                "What is the name of the dog?",
                "The dog is called {pet} and was adopted by {name}.",
            ),
            (
                "price",
                "How much was the adoption fee?",
                "The adoption fee was {price}, and it included the first vaccinations.",
            ),
            (
                "name",
                "Who adopted the dog?",
                "The dog was adopted by {name} from a shelter in {city}.",
            ),
        ),
    ),
    (
        (
            "After six years as a {job} in {city}, {name} decided to open a small bakery. It will "
            "welcome its first customers on {date}."
        ),
        (
            (
                "job",
                "What was the person's job before the bakery?",
                "Before opening the bakery, {name} worked as a {job} for six years.",
            ),
            (
                "date",
                "When will the bakery open?",
                "The bakery will welcome its first customers on {date}.",
            ),
            (
                "city",
                "In which city did the person work before?",
                "Before the change, {name} worked in {city} for six years.",
            ),
        ),
    ),
    (
        (
            "Your appointment with Dr. {name} is on {date} at {time}. The practice is next to the "
            "{place}. Please bring your insurance card."
        ),
        (
            (
                "time",
                "At what time is the appointment?",
                "The appointment is at {time} on {date}.",
            ),
            (
                "place",
                "What is next to the practice?",
                "The practice is next to the {place}, which makes it easy to find.",
            ),
            (
                "name",
                "Which doctor is the appointment with?",
                ("The appointment is with Dr. {name}, and the patient should bring an insurance card."),
            ),
        ),
    ),
    (
        (
            "In the final, {name} beat {other} in three sets and won a prize of {price}. The next "
            "tournament starts in {city} on {date}."
        ),
        (
            (
                "name",
                "Who won the final?",
                "The final was won by {name}, who beat {other} in three sets.",
            ),
            (
                "price",
                "How large was the prize?",
                "The winner, {name}, received a prize of {price}.",
            ),
            (
                "city",
                "Where does the next tournament take place?",
                "The next tournament takes place in {city}, starting on {date}.",
            ),
        ),
    ),
)

# Activity, its steps in the right order.
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("making tea", ("boil the water", "put the tea bag in a cup", "pour the water over it", "take the tea bag out")),
    (
        "washing dishes",
        ("scrape off the leftovers", "fill the sink with soapy water", "scrub the plates", "dry the plates"),
    ),
    ("planting a seed", ("loosen the soil", "make a small hole", "drop the seed in", "cover it and water it")),
    (
        "mailing a letter",
        ("write the letter", "fold it into an envelope", "stick on a stamp", "drop it in the mailbox"),
    ),
    ("baking a cake", ("mix the batter", "pour it into a pan", "bake it in the oven", "let it cool and add frosting")),
    (
        "changing a flat tire",
        ("loosen the bolts", "raise the car with a jack", "take off the flat tire", "put on the spare tire"),
    ),
    ("taking a flight", ("check in your bags", "go through security", "board the plane", "land at your destination")),
    ("doing laundry", ("sort the clothes", "run the washing machine", "hang the clothes up", "fold the dry clothes")),
    (
        "going to the dentist",
        ("call to make an appointment", "arrive at the practice", "have the teeth checked", "pay at the desk"),
    ),
    ("painting a room", ("cover the furniture", "tape the edges", "paint the walls", "remove the tape")),
    ("borrowing a book", ("search the library catalog", "find the shelf", "check the book out", "read it at home")),
    ("making toast", ("slice the bread", "put it in the toaster", "wait until it is brown", "spread butter on it")),
    (
        "building a campfire",
        ("gather dry wood", "stack the wood in a fire ring", "light the kindling", "pour water on the embers"),
    ),
    ("cooking pasta", ("fill a pot with water", "bring it to a boil", "add the pasta", "drain the pasta")),
    ("writing an essay", ("choose a topic", "make an outline", "write a draft", "correct the mistakes")),
    (
        "buying a ticket from a machine",
        ("choose the destination", "select the number of travelers", "insert the money", "take the ticket"),
    ),
    ("getting dressed for snow", ("put on socks", "pull on warm pants", "step into boots", "go out the door")),
    ("the life of a butterfly", ("egg", "caterpillar", "pupa", "butterfly")),
    ("the life of a frog", ("egg", "tadpole", "froglet", "adult frog")),
    ("a school day", ("wake up", "eat breakfast", "sit in lessons", "come home in the afternoon")),
    ("ordering in a restaurant", ("read the menu", "order the food", "eat the meal", "pay the bill")),
    ("building a house", ("dig the foundation", "raise the walls", "put on the roof", "move in the furniture")),
)

# What to put in order, its members in the right order.
SCALES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "these units of time from shortest to longest",
        ("second", "minute", "hour", "day", "week", "month", "year", "decade", "century"),
    ),
    ("these units of length from shortest to longest", ("millimeter", "centimeter", "meter", "kilometer")),
    (
        "these months in calendar order",
        (
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ),
    ),
    (
        "these weekdays as they follow after Sunday",
        ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"),
    ),
    (
        "these planets from nearest to farthest from the Sun",
        ("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"),
    ),
    ("these animals from smallest to largest", ("ant", "mouse", "cat", "sheep", "horse", "elephant")),
    ("these meals and times of day from earliest to latest", ("breakfast", "lunch", "afternoon tea", "dinner")),
    ("these stages of life from youngest to oldest", ("baby", "toddler", "teenager", "adult")),
)

# Event, year.
HISTORY: tuple[tuple[str, int], ...] = (
    ("the invention of the printing press in Europe", 1440),
    ("the first voyage of Columbus to the Americas", 1492),
    ("the publication of Newton's law of gravitation", 1687),
    ("the Declaration of Independence of the United States", 1776),
    ("the start of the French Revolution", 1789),
    ("the patent for the telephone", 1876),
    ("the opening of the Eiffel Tower", 1889),
    ("the first powered airplane flight", 1903),
    ("the sinking of the Titanic", 1912),
    ("the start of the First World War", 1914),
    ("the discovery of penicillin", 1928),
    ("the end of the Second World War", 1945),
    ("the first human in space", 1961),
    ("the first Moon landing", 1969),
    ("the fall of the Berlin Wall", 1989),
    ("the introduction of euro coins", 2002),
)
