"""General knowledge for the starter rows: capitals and mixed questions with their answers."""

# Country, capital, one sentence about the capital.
CAPITALS: tuple[tuple[str, str, str], ...] = (
    (
        "France",
        "Paris",
        ("The city lies on the river Seine and is known for its museums, its cafes and the Eiffel Tower."),
    ),
    (
        "Japan",
        "Tokyo",
        ("It is one of the most populated urban areas in the world and the seat of the Japanese government."),
    ),
    (
        "Canada",
        "Ottawa",
        ("Many people expect Toronto, but the federal parliament meets in Ottawa, in the province of Ontario."),
    ),
    ("Australia", "Canberra", "It was planned as a compromise between the two rival cities of Sydney and Melbourne."),
    (
        "Brazil",
        "Brasilia",
        ("The city was built inland in the late 1950s and replaced Rio de Janeiro as the seat of government in 1960."),
    ),
    (
        "Egypt",
        "Cairo",
        ("It stands on the Nile, and the pyramids of Giza are only a short drive from the city center."),
    ),
    ("Kenya", "Nairobi", "The city is unusual for having a national park with wild animals right at its edge."),
    ("Italy", "Rome", "The city is famous for ancient sites such as the Colosseum and the Forum."),
    ("Spain", "Madrid", "It lies near the geographic center of the country and is home to the Prado Museum."),
    ("Portugal", "Lisbon", "The city is built on hills beside the Tagus River, close to the Atlantic Ocean."),
    ("Germany", "Berlin", "It became the capital of the reunited country again after 1990."),
    (
        "Norway",
        "Oslo",
        ("The city sits at the head of a fjord and hosts the Nobel Peace Prize ceremony every December."),
    ),
    ("Sweden", "Stockholm", "The city is spread over fourteen islands where a large lake meets the Baltic Sea."),
    ("Finland", "Helsinki", "It is a coastal city on the Gulf of Finland, in the south of the country."),
    ("Denmark", "Copenhagen", "The city is well known for its harbor, its cycling lanes and the Tivoli Gardens."),
    ("Poland", "Warsaw", "Much of its old town was carefully rebuilt after the Second World War."),
    ("Greece", "Athens", "The Acropolis, with the Parthenon on top, rises above the middle of the city."),
    ("Turkey", "Ankara", "Istanbul is the larger city, but the government has been based in Ankara since 1923."),
    ("India", "New Delhi", "It was designed in the early twentieth century, next to the much older city of Delhi."),
    ("China", "Beijing", "The Forbidden City, once home to emperors, lies at its center."),
    ("South Korea", "Seoul", "The city lies on the Han River and is home to several restored royal palaces."),
    (
        "Thailand",
        "Bangkok",
        "It is a busy city of temples, markets and canals near the mouth of the Chao Phraya River.",
    ),
    (
        "Vietnam",
        "Hanoi",
        ("It lies in the north of the country, while the largest city, Ho Chi Minh City, is in the south."),
    ),
    ("Argentina", "Buenos Aires", "The city lies on the Río de la Plata and is closely linked with the tango."),
    ("Chile", "Santiago", "The city lies in a valley with the Andes mountains rising to the east."),
    ("Peru", "Lima", "It lies on the Pacific coast and was founded by the Spanish in 1535."),
    ("Mexico", "Mexico City", "It was built on the site of Tenochtitlan, the old center of the Aztec empire."),
    ("Cuba", "Havana", "The city is known for its colorful old streets and its long seaside promenade."),
    (
        "New Zealand",
        "Wellington",
        "It lies at the southern end of the North Island and is known for its strong winds.",
    ),
    ("Morocco", "Rabat", "Casablanca is larger, but the royal palace and the parliament are in Rabat."),
    ("Ghana", "Accra", "It is a large coastal city on the Gulf of Guinea."),
    ("Austria", "Vienna", "The city lies on the Danube and has a long tradition of classical music."),
    (
        "Hungary",
        "Budapest",
        "It was formed in 1873 when the towns of Buda, Óbuda and Pest were joined into one city.",
    ),
    ("Ireland", "Dublin", "The city lies on the river Liffey, on the east coast of the island."),
)

# Question, phrase that a right answer contains, full answer.
FACTS: tuple[tuple[str, str, str], ...] = (
    (
        "What is the chemical symbol for iron?",
        "Fe",
        "The chemical symbol for iron is Fe. It comes from ferrum, the Latin name of the metal.",
    ),
    (
        "What is the chemical symbol for gold?",
        "Au",
        "The chemical symbol for gold is Au, which comes from the Latin word aurum.",
    ),
    (
        "What is the chemical symbol for silver?",
        "Ag",
        "Silver has the chemical symbol Ag, which is taken from its Latin name, argentum.",
    ),
    (
        "What is the chemical symbol for sodium?",
        "Na",
        (
            "Sodium has the chemical symbol Na, from natrium. You meet it every day in table salt, "
            "which is sodium chloride."
        ),
    ),
    (
        "Which chemical symbol stands for lead?",
        "Pb",
        ('The symbol for lead is Pb, from the Latin plumbum. The English word "plumber" has the same root.'),
    ),
    (
        "Which chemical symbol is used for mercury?",
        "Hg",
        ("Mercury is written as Hg. It is the only metal that is liquid at ordinary room temperature."),
    ),
    (
        "Which chemical symbol is used for helium?",
        "He",
        "The symbol for helium is He. It is a very light gas that is used to fill party balloons.",
    ),
    (
        "Which element has the chemical symbol K?",
        "potassium",
        (
            "The symbol K stands for potassium, a soft and very reactive metal. The letter comes "
            "from kalium, another name for it."
        ),
    ),
    (
        "Which element has the chemical symbol O?",
        "oxygen",
        ("The symbol O stands for oxygen, the gas in the air that people and animals need to breathe."),
    ),
    (
        "Which element does the symbol C stand for?",
        "carbon",
        ("The symbol C stands for carbon. It is found in all living things, and also in diamonds and graphite."),
    ),
    (
        "Which element does the symbol N stand for?",
        "nitrogen",
        "The symbol N stands for nitrogen, which makes up about 78 percent of the air around us.",
    ),
    (
        "Which element has the chemical symbol Cu?",
        "copper",
        ("The symbol Cu stands for copper, a reddish metal that conducts electricity well and is used in most wires."),
    ),
    (
        "Which element has the chemical symbol Sn?",
        "tin",
        ("The symbol Sn stands for tin, from its Latin name stannum. It is often used to coat steel cans."),
    ),
    (
        "Which element has the chemical symbol Ca?",
        "calcium",
        "The symbol Ca stands for calcium, a metal that the body needs for strong bones and teeth.",
    ),
    (
        "Which element is the lightest of all?",
        "hydrogen",
        ("Hydrogen is the lightest element. Its most common atom has just one proton and one electron."),
    ),
    (
        "What is the chemical formula of water?",
        "H2O",
        (
            "The chemical formula of water is H2O, which means that each molecule has two hydrogen "
            "atoms and one oxygen atom."
        ),
    ),
    (
        "What is the chemical formula of carbon dioxide?",
        "CO2",
        "Carbon dioxide has the formula CO2: one carbon atom joined to two oxygen atoms.",
    ),
    (
        "Which planet is closest to the Sun?",
        "Mercury",
        (
            "Mercury is the planet closest to the Sun. It is also the smallest planet and takes "
            "only about 88 days for one orbit."
        ),
    ),
    (
        "Which planet is the largest in our solar system?",
        "Jupiter",
        (
            "Jupiter is the largest planet in our solar system. It has more than twice the mass of "
            "all the other planets together."
        ),
    ),
    (
        "Which planet is known as the Red Planet?",
        "Mars",
        ("Mars is known as the Red Planet, because iron oxide in its dust and rocks gives it a rusty color."),
    ),
    (
        "Which planet is best known for its bright rings?",
        "Saturn",
        (
            "Saturn is best known for its rings, which are made mostly of pieces of ice together "
            "with some rock and dust."
        ),
    ),
    (
        "Which planet is the hottest in the solar system?",
        "Venus",
        (
            "Venus is the hottest planet. Its thick atmosphere of carbon dioxide traps heat, so it "
            "is even hotter than Mercury."
        ),
    ),
    (
        "Which planet is the farthest from the Sun?",
        "Neptune",
        ("Neptune is the planet farthest from the Sun. It needs about 165 Earth years to go around it once."),
    ),
    (
        "Which planet spins almost on its side?",
        "Uranus",
        (
            "Uranus spins almost on its side, with an axis tilted by about 98 degrees. A very old "
            "collision may have caused this."
        ),
    ),
    (
        "How many planets are there in our solar system?",
        "eight",
        (
            "There are eight planets in our solar system: Mercury, Venus, Earth, Mars, Jupiter, "
            "Saturn, Uranus and Neptune."
        ),
    ),
    (
        "What is the name of the galaxy that we live in?",
        "Milky Way",
        (
            "We live in the Milky Way, a spiral galaxy with at least a hundred billion stars. Our "
            "Sun is just one of them."
        ),
    ),
    (
        "What star is closest to Earth?",
        "Sun",
        (
            "The star closest to Earth is the Sun. It is about 150 million kilometers away, and its "
            "light needs roughly eight minutes to reach us."
        ),
    ),
    (
        "Who was the first person to walk on the Moon?",
        "Neil Armstrong",
        ("Neil Armstrong was the first person to walk on the Moon, on July 20, 1969, during the Apollo 11 mission."),
    ),
    (
        "Who was the first human to travel into space?",
        "Yuri Gagarin",
        ("Yuri Gagarin was the first human in space. The Soviet cosmonaut circled the Earth once on April 12, 1961."),
    ),
    (
        "Which animal is the largest on Earth?",
        "blue whale",
        (
            "The blue whale is the largest animal on Earth. It can grow to around 30 meters and "
            "lives on tiny shrimp-like krill."
        ),
    ),
    (
        "Which animal is the fastest runner on land?",
        "cheetah",
        (
            "The cheetah is the fastest runner on land. Over short distances it can reach roughly "
            "100 kilometers per hour."
        ),
    ),
    (
        "Which animal is the tallest in the world?",
        "giraffe",
        ("The giraffe is the tallest animal in the world. Adult males can be more than five meters tall."),
    ),
    (
        "Which land animal is the largest?",
        "elephant",
        "The African elephant is the largest land animal. A big male can weigh six tonnes or more.",
    ),
    (
        "Which bird is the largest in the world?",
        "ostrich",
        ("The ostrich is the largest living bird. It cannot fly, but it can run at about 70 kilometers per hour."),
    ),
    ("How many legs does a spider have?", "eight", "A spider has eight legs, which is two more than an insect has."),
    (
        "How many legs does an insect have?",
        "six",
        "An adult insect has six legs, arranged in three pairs on the middle part of its body.",
    ),
    (
        "What do pandas mostly eat?",
        "bamboo",
        (
            "Giant pandas mostly eat bamboo. Because it contains little energy, they spend a large "
            "part of the day chewing."
        ),
    ),
    (
        "How many hearts does an octopus have?",
        "three",
        (
            "An octopus has three hearts. Two of them pump blood through the gills, and one pumps "
            "it through the rest of the body."
        ),
    ),
    (
        "Which mammals are able to truly fly?",
        "bats",
        ("Bats are the only mammals that can truly fly. Flying squirrels only glide from one tree to another."),
    ),
    (
        "What does a caterpillar turn into?",
        "butterfly",
        (
            "A caterpillar turns into a butterfly or a moth. The change takes place inside a pupa "
            "and is called metamorphosis."
        ),
    ),
    (
        "What is a young kangaroo called?",
        "joey",
        ("A young kangaroo is called a joey. It spends its first months growing in its mother's pouch."),
    ),
    (
        "What do we call a person who studies insects?",
        "entomologist",
        (
            "A person who studies insects is called an entomologist. The work ranges from "
            "protecting bees to controlling pests on farms."
        ),
    ),
    (
        "What do bees make from the nectar of flowers?",
        "honey",
        ("Bees make honey from the nectar of flowers. They store it in the comb as food for the winter."),
    ),
    (
        "On which continent do wild penguins live near the South Pole?",
        "Antarctica",
        (
            "Wild penguins near the South Pole live in Antarctica. Other kinds live on the southern "
            "coasts of Africa, Australia and South America."
        ),
    ),
    (
        "Where do wild kangaroos live?",
        "Australia",
        "Wild kangaroos live in Australia, and some of their relatives are found in New Guinea.",
    ),
    (
        "Who invented the telephone?",
        "Alexander Graham Bell",
        (
            "Alexander Graham Bell received the first patent for the telephone in 1876, although "
            "other inventors worked on similar devices."
        ),
    ),
    (
        "Who developed the movable-type printing press in Europe?",
        "Gutenberg",
        (
            "Johannes Gutenberg developed the movable-type printing press in Europe around 1440. It "
            "made books much cheaper and easier to produce."
        ),
    ),
    (
        "Which brothers built and flew the first powered airplane?",
        "Wright",
        (
            "The Wright brothers, Orville and Wilbur, made the first powered airplane flight at "
            "Kitty Hawk, North Carolina, in December 1903."
        ),
    ),
    (
        "Who invented the World Wide Web?",
        "Tim Berners-Lee",
        ("Tim Berners-Lee invented the World Wide Web in 1989, while he was working at CERN near Geneva."),
    ),
    (
        "Who discovered penicillin?",
        "Alexander Fleming",
        (
            "Alexander Fleming discovered penicillin in 1928, when he noticed that a mold was "
            "killing the bacteria in one of his dishes."
        ),
    ),
    (
        "Who developed the theory of relativity?",
        "Albert Einstein",
        (
            "Albert Einstein developed the theory of relativity. He published the special theory in "
            "1905 and the general theory in 1915."
        ),
    ),
    (
        "Who described the law of universal gravitation in 1687?",
        "Isaac Newton",
        (
            "Isaac Newton described the law of universal gravitation in 1687. It explains both "
            "falling objects and the orbits of the planets."
        ),
    ),
    (
        'Who proposed the theory of evolution by natural selection in "On the Origin of Species"?',
        "Charles Darwin",
        ('Charles Darwin proposed it in his book "On the Origin of Species", which was published in 1859.'),
    ),
    (
        "Which scientist discovered the elements polonium and radium?",
        "Marie Curie",
        (
            "Marie Curie discovered polonium and radium together with her husband Pierre. She won "
            "Nobel Prizes in both physics and chemistry."
        ),
    ),
    (
        "Who created the first successful vaccine against smallpox?",
        "Edward Jenner",
        (
            "Edward Jenner created the first successful smallpox vaccine in 1796, using material "
            "from the much milder disease cowpox."
        ),
    ),
    (
        "Who arranged the chemical elements in an early form of the periodic table in 1869?",
        "Mendeleev",
        (
            "Dmitri Mendeleev published his periodic table in 1869. He even left gaps for elements "
            "that nobody had found yet."
        ),
    ),
    (
        "Who is known for writing the first program for a computing machine, in the 1840s?",
        "Ada Lovelace",
        (
            "Ada Lovelace is known for it. In 1843 she published a method for Charles Babbage's "
            "planned Analytical Engine."
        ),
    ),
    (
        "Who used a telescope to discover four large moons of Jupiter in 1610?",
        "Galileo",
        ("Galileo Galilei discovered them in January 1610. They are Io, Europa, Ganymede and Callisto."),
    ),
    (
        "Which inventor is known for the dynamite patent and for founding a set of famous prizes?",
        "Alfred Nobel",
        ("Alfred Nobel patented dynamite in 1867. In his will he left most of his money to fund the Nobel Prizes."),
    ),
    (
        "Who showed that heating milk or wine kills harmful germs?",
        "Louis Pasteur",
        (
            "Louis Pasteur showed this in the 1860s, and the method of gentle heating is called "
            "pasteurization after him."
        ),
    ),
    (
        "At what temperature does water boil at sea level, in degrees Celsius?",
        "100",
        (
            "At sea level, water boils at about 100 degrees Celsius. High in the mountains it boils "
            "at a lower temperature."
        ),
    ),
    (
        "At what temperature does water freeze, in degrees Fahrenheit?",
        "32",
        "Water freezes at 32 degrees Fahrenheit, which is the same as 0 degrees Celsius.",
    ),
    (
        "What gas do plants take from the air to make their food?",
        "carbon dioxide",
        ("Plants take carbon dioxide from the air. With the help of sunlight and water they turn it into sugar."),
    ),
    (
        "What is the process called by which plants make food from sunlight?",
        "photosynthesis",
        (
            "The process is called photosynthesis. Plants use sunlight, water and carbon dioxide to "
            "make sugar, and they release oxygen."
        ),
    ),
    (
        "What force pulls objects toward the ground?",
        "gravity",
        (
            "Gravity pulls objects toward the ground. It is the attraction between the mass of the "
            "Earth and the mass of the object."
        ),
    ),
    (
        "Which instrument is used to measure temperature?",
        "thermometer",
        ("A thermometer is used to measure temperature. Doctors, cooks and weather stations all rely on one."),
    ),
    (
        "Which instrument is used to measure air pressure?",
        "barometer",
        ("A barometer measures air pressure. Falling pressure often means that stormy weather is on its way."),
    ),
    (
        "What is the hardest natural material that is commonly known?",
        "diamond",
        (
            "Diamond is the hardest commonly known natural material. It is a form of carbon made "
            "under high pressure deep inside the Earth."
        ),
    ),
    (
        "Which gas makes up most of the air on Earth?",
        "nitrogen",
        ("Nitrogen makes up most of the air, at around 78 percent. Oxygen comes second with around 21 percent."),
    ),
    (
        "What is the center of an atom called?",
        "nucleus",
        (
            "The center of an atom is called the nucleus. It contains protons and neutrons, while "
            "electrons move around it."
        ),
    ),
    (
        "Which particle in an atom carries a negative charge?",
        "electron",
        ("The electron carries a negative charge. Protons are positive, and neutrons have no charge at all."),
    ),
    (
        "What unit is used to measure electric current?",
        "ampere",
        (
            "Electric current is measured in amperes, often shortened to amps. Each ampere is a "
            "certain amount of charge flowing per second."
        ),
    ),
    (
        "What unit is used to measure force?",
        "newton",
        (
            "Force is measured in newtons, named after Isaac Newton. Holding a small apple takes a "
            "force of roughly one newton."
        ),
    ),
    (
        "What is molten rock called once it has reached the surface?",
        "lava",
        ("Molten rock that has reached the surface is called lava. While it is still underground it is called magma."),
    ),
    (
        "What does a seismograph record?",
        "earthquake",
        (
            "A seismograph records the shaking of the ground, which lets scientists measure an "
            "earthquake and find where it began."
        ),
    ),
    (
        "What are the three most familiar states of matter?",
        "liquid",
        (
            "The three most familiar states of matter are solid, liquid and gas. Water shows all of "
            "them as ice, water and steam."
        ),
    ),
    (
        "Which vitamin does skin produce in sunlight?",
        "vitamin D",
        "Skin produces vitamin D in sunlight. The body needs it to absorb calcium for the bones.",
    ),
    (
        "What color do you get when you mix blue and yellow paint?",
        "green",
        ("Mixing blue and yellow paint gives green. Using more yellow makes the green lighter and fresher."),
    ),
    (
        "What color do you get when you mix red and yellow paint?",
        "orange",
        ("Red and yellow paint mix to make orange. The more red you add, the deeper the orange becomes."),
    ),
    (
        "Which organ pumps blood through the body?",
        "heart",
        ("The heart pumps blood through the body. It beats around 100,000 times a day in a healthy adult."),
    ),
    (
        "Which organ do people use to breathe in oxygen?",
        "lungs",
        ("People breathe in oxygen with their lungs, where it passes into the blood and carbon dioxide is given off."),
    ),
    (
        "What is the largest organ of the human body?",
        "skin",
        ("The skin is the largest organ of the human body. It protects us from germs, injury and drying out."),
    ),
    (
        "How many bones does an adult human usually have?",
        "206",
        ("An adult human usually has 206 bones. Babies are born with more, but some of them grow together over time."),
    ),
    (
        "What is the longest bone in the human body?",
        "femur",
        "The longest bone is the femur, or thigh bone, which runs from the hip to the knee.",
    ),
    (
        "How many teeth does an adult normally have, including wisdom teeth?",
        "32",
        "An adult normally has 32 teeth, including four wisdom teeth, which are often removed.",
    ),
    (
        "Which part of the body contains the cornea and the retina?",
        "eye",
        ("The eye contains both. The cornea is the clear front surface, and the retina at the back senses light."),
    ),
    (
        "Which vitamin is plentiful in oranges and lemons?",
        "vitamin C",
        ("Oranges and lemons are rich in vitamin C. Sailors once ate citrus fruit on long voyages to prevent scurvy."),
    ),
    (
        "What is the longest wall ever built?",
        "Great Wall",
        (
            "The Great Wall of China is the longest wall ever built. Its many sections, raised over "
            "centuries, add up to thousands of kilometers."
        ),
    ),
    (
        "Which ocean is the largest?",
        "Pacific",
        ("The Pacific Ocean is the largest ocean. It covers roughly a third of the surface of the Earth."),
    ),
    (
        "What is the highest mountain above sea level?",
        "Everest",
        (
            "Mount Everest is the highest mountain above sea level, at about 8,849 meters. It "
            "stands on the border of Nepal and China."
        ),
    ),
    (
        "Which is the largest hot desert in the world?",
        "Sahara",
        ("The Sahara, in northern Africa, is the largest hot desert. It is almost as big as the United States."),
    ),
    (
        "Which river flows through London?",
        "Thames",
        (
            "The River Thames flows through London. It passes famous places such as the Houses of "
            "Parliament and Tower Bridge."
        ),
    ),
    (
        "Which river flows through Egypt to the Mediterranean Sea?",
        "Nile",
        ("The Nile flows north through Egypt to the Mediterranean Sea. Most Egyptians live close to its banks."),
    ),
    (
        "On which continent is Brazil?",
        "South America",
        (
            "Brazil is in South America. It is the largest country on that continent and borders "
            "nearly all of the others."
        ),
    ),
    (
        "What is the smallest country in the world?",
        "Vatican City",
        (
            "The smallest country in the world is Vatican City. It lies inside Rome and covers less "
            "than half a square kilometer."
        ),
    ),
    (
        "Which country is the largest by area?",
        "Russia",
        ("Russia is the largest country by area. It stretches across eleven time zones, from Europe to the Pacific."),
    ),
    (
        "In which country would you find the city of Kyoto?",
        "Japan",
        ("Kyoto is in Japan. It was the home of the emperor for more than a thousand years and has many temples."),
    ),
    (
        "In which country is the ancient city of Machu Picchu?",
        "Peru",
        "Machu Picchu is in Peru, high in the Andes. The Inca built it in the fifteenth century.",
    ),
    (
        "In which country does the Taj Mahal stand?",
        "India",
        ("The Taj Mahal stands in Agra, in India. The emperor Shah Jahan had it built in memory of his wife."),
    ),
    (
        "In which city can you visit the Statue of Liberty?",
        "New York",
        (
            "You can visit the Statue of Liberty in New York. It stands on Liberty Island in the "
            "harbor and was a gift from France."
        ),
    ),
    (
        "Which continent is the coldest?",
        "Antarctica",
        ("Antarctica is the coldest continent. Its interior has seen temperatures below minus 80 degrees Celsius."),
    ),
    (
        "Which language has the most native speakers in Brazil?",
        "Portuguese",
        ("Portuguese has the most native speakers in Brazil, because the country was once a colony of Portugal."),
    ),
    (
        "What currency is used in Japan?",
        "yen",
        "The currency of Japan is the yen. Coins and notes range from one yen to ten thousand yen.",
    ),
    (
        "What currency is used in the United Kingdom?",
        "pound",
        "The United Kingdom uses the pound sterling, which is divided into one hundred pence.",
    ),
    (
        "What currency do Germany, France and Italy share?",
        "euro",
        ("Germany, France and Italy share the euro. It has been used for notes and coins there since 2002."),
    ),
    (
        "In which year did the Second World War end?",
        "1945",
        ("The Second World War ended in 1945, in May in Europe and in September with the formal surrender of Japan."),
    ),
    (
        "In which year did the First World War begin?",
        "1914",
        ("The First World War began in 1914, a few weeks after Archduke Franz Ferdinand was shot in Sarajevo."),
    ),
    (
        "In which year did the Berlin Wall come down?",
        "1989",
        ("The Berlin Wall came down in November 1989, and Germany was reunited less than a year later."),
    ),
    (
        "Who was the first president of the United States?",
        "George Washington",
        ("George Washington was the first president of the United States. He served two terms, from 1789 to 1797."),
    ),
    (
        "Which ancient people built the pyramids of Giza?",
        "Egyptians",
        ("The ancient Egyptians built the pyramids of Giza, more than 4,500 years ago, as tombs for their kings."),
    ),
    (
        "In which country did the Renaissance begin?",
        "Italy",
        ("The Renaissance began in Italy, in cities such as Florence, during the fourteenth and fifteenth centuries."),
    ),
    (
        "Which ship sank in 1912 after hitting an iceberg?",
        "Titanic",
        ("The Titanic sank in April 1912 after it hit an iceberg on its first voyage from Southampton to New York."),
    ),
    (
        "Who led the peaceful movement for the independence of India?",
        "Gandhi",
        ("Mahatma Gandhi led the peaceful movement. India became independent from British rule in 1947."),
    ),
    (
        "Who became the first Black president of South Africa in 1994?",
        "Nelson Mandela",
        (
            "Nelson Mandela became president of South Africa in 1994, after many years in prison "
            "for opposing apartheid."
        ),
    ),
    (
        "Who painted the Mona Lisa?",
        "Leonardo da Vinci",
        (
            "Leonardo da Vinci painted the Mona Lisa in the early sixteenth century. It now hangs "
            "in the Louvre in Paris."
        ),
    ),
    (
        'Who painted "The Starry Night"?',
        "Vincent van Gogh",
        ('Vincent van Gogh painted "The Starry Night" in 1889, during his stay at an asylum in the south of France.'),
    ),
    (
        'Who wrote the play "Romeo and Juliet"?',
        "Shakespeare",
        (
            'William Shakespeare wrote "Romeo and Juliet" in the 1590s. It tells of two young '
            "lovers from feuding families."
        ),
    ),
    (
        'Who wrote the novel "Pride and Prejudice"?',
        "Jane Austen",
        ('Jane Austen wrote "Pride and Prejudice", which was published in 1813 and is still widely read.'),
    ),
    (
        'Who composed the Ninth Symphony with its famous "Ode to Joy"?',
        "Beethoven",
        (
            "Ludwig van Beethoven composed it. The Ninth Symphony was first performed in 1824, when "
            "he was almost completely deaf."
        ),
    ),
    (
        "How many strings does a standard violin have?",
        "four",
        "A standard violin has four strings, usually tuned to the notes G, D, A and E.",
    ),
    (
        "How many keys does a standard piano have?",
        "88",
        "A standard piano has 88 keys, of which 52 are white and 36 are black.",
    ),
    (
        "How many players does a soccer team have on the field?",
        "eleven",
        "A soccer team has eleven players on the field, one of whom is the goalkeeper.",
    ),
    (
        "How often are the Summer Olympic Games normally held?",
        "four years",
        ("The Summer Olympic Games are normally held every four years, each time in a different host city."),
    ),
    ("How many days does a leap year have?", "366", "A leap year has 366 days. The extra day is February 29."),
    (
        "How many sides does a hexagon have?",
        "six",
        "A hexagon has six sides. The cells of a honeycomb are a well-known example of the shape.",
    ),
    (
        "What is the name of a triangle with three equal sides?",
        "equilateral",
        ("A triangle with three equal sides is called equilateral. Each of its angles measures 60 degrees."),
    ),
    (
        "What do you call the distance around a circle?",
        "circumference",
        "The distance around a circle is called its circumference. It equals pi times the diameter.",
    ),
)
