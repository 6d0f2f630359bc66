"""People, places, objects and words that fill the slots of the starter rows."""

NAMES: tuple[str, ...] = (
    *("Amina", "Ben", "Carla", "Daniel", "Elena", "Felix", "Grace", "Hugo", "Ines", "Jonas", "Kemal", "Laura"),
    *("Marco", "Nadia", "Oscar", "Paula", "Quentin", "Rosa", "Samuel", "Tara", "Uma", "Victor", "Wendy", "Xavier"),
    *("Yara", "Zoe", "Anton", "Bianca", "Cedric", "Dalia", "Emil", "Farah", "Gita", "Henrik", "Isla", "Jamal"),
    *("Katya", "Liam", "Mei", "Noah", "Olga", "Pedro", "Ravi", "Sofia", "Theo", "Vera", "Yusuf", "Amir"),
)

SURNAMES: tuple[str, ...] = (
    *("Abbott", "Bauer", "Castillo", "Dubois", "Eriksen", "Fontaine", "Garcia", "Hoffman", "Ivanova", "Jensen"),
    *("Kowalski", "Lindgren", "Moreau", "Nakamura", "Okafor", "Petrov", "Quinn", "Rossi", "Schmidt", "Tanaka"),
    *("Usman", "Vargas", "Weber", "Yilmaz", "Zhang", "Novak", "Haddad", "Mensah", "Silva", "Larsen"),
)

CITIES: tuple[str, ...] = (
    *("Lyon", "Porto", "Leeds", "Bergen", "Ghent", "Seville", "Turin", "Hamburg", "Krakow", "Graz", "Utrecht"),
    *("Boston", "Denver", "Quebec", "Osaka", "Busan", "Mumbai", "Lagos", "Mombasa", "Cusco", "Valencia", "Bristol"),
    *("Zurich", "Malmo", "Tampere", "Cork", "Perth", "Hobart", "Dunedin", "Salzburg", "Split", "Izmir"),
)

MONTHS: tuple[str, ...] = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

ITEMS: tuple[str, ...] = (
    *("coffee grinder", "desk lamp", "rain jacket", "wooden chess set", "violin", "typewriter", "silver watch"),
    *("garden bench", "record player", "sewing machine", "copper kettle", "leather suitcase", "wall clock"),
    *("camping stove", "bookshelf", "porcelain vase", "telescope", "rocking chair", "toolbox", "folding bicycle"),
)

COMPANIES: tuple[str, ...] = (
    *("Larkfield Foods", "Bluestone Bikes", "Norwind Energy", "Pebble & Pine", "Castor Tools", "Maplebrook Paper"),
    *("Sunrow Textiles", "Harborlight Books", "Quillworks", "Alder Lane Toys", "Fernhill Tea", "Ironleaf Furniture"),
)

FESTIVALS: tuple[str, ...] = (
    *("Lantern Walk", "Riverside Jazz Days", "Harvest Fair", "Kite Festival", "Winter Book Market"),
    *("Street Theater Week", "Cherry Blossom Run", "Old Town Music Night", "Lakeside Film Festival"),
)

LANDMARKS: tuple[str, ...] = (
    *("fire station", "old mill", "public library", "swimming pool", "town hall", "botanical garden"),
    *("central station", "post office", "community center", "tennis courts", "stone bridge", "bakery on Elm Street"),
)

JOBS: tuple[str, ...] = (
    *("nurse", "bus driver", "lawyer", "teacher", "gardener", "web designer", "carpenter", "journalist"),
    *("translator", "pharmacist", "photographer", "ship engineer"),
)

PETS: tuple[str, ...] = (
    *("Biscuit", "Pepper", "Momo", "Ziggy", "Hazel", "Rocket", "Nugget", "Luna", "Waffle", "Scout", "Poppy", "Olive"),
)

WORD_POOLS: tuple[tuple[str, ...], ...] = (
    ("apple", "banana", "cherry", "fig", "grape", "kiwi", "lemon", "mango", "orange", "peach", "plum", "quince"),
    ("anchor", "boat", "captain", "deck", "harbor", "island", "lighthouse", "mast", "pier", "sail", "tide", "wave"),
    ("basil", "carrot", "celery", "garlic", "ginger", "leek", "onion", "parsley", "pepper", "spinach", "thyme"),
    ("acorn", "branch", "cedar", "fern", "forest", "maple", "meadow", "moss", "oak", "pine", "root", "willow"),
    ("bread", "butter", "cheese", "cream", "honey", "jam", "milk", "noodle", "rice", "salt", "sugar", "yogurt"),
    ("bicycle", "bus", "car", "ferry", "helicopter", "plane", "rocket", "scooter", "subway", "train", "tram", "truck"),
    ("chisel", "drill", "file", "hammer", "ladder", "nail", "pliers", "ruler", "saw", "screw", "vise", "wrench"),
    ("album", "cello", "concert", "drum", "flute", "guitar", "harp", "melody", "piano", "rhythm", "trumpet", "violin"),
    ("cloud", "drizzle", "fog", "frost", "hail", "lightning", "rain", "snow", "storm", "sunshine", "thunder", "wind"),
    ("blanket", "chair", "cupboard", "curtain", "lamp", "mirror", "pillow", "rug", "shelf", "sofa", "table", "vase"),
    (
        "badger",
        "camel",
        "dolphin",
        "falcon",
        "hedgehog",
        "lizard",
        "otter",
        "panda",
        "rabbit",
        "seal",
        "turtle",
        "zebra",
    ),
    ("book", "chapter", "editor", "letter", "magazine", "novel", "page", "poem", "reader", "story", "title", "writer"),
    ("baker", "dentist", "farmer", "judge", "mechanic", "nurse", "pilot", "plumber", "sailor", "tailor", "teacher"),
    ("brave", "calm", "eager", "friendly", "gentle", "honest", "kind", "patient", "quiet", "shy", "wise", "witty"),
)
