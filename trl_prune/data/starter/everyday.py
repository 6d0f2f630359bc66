"""Everyday knowledge for the starter rows: tools, advice, reasons and short explanations."""

# Question, phrase that a right answer contains, full answer.
TOOLS: tuple[tuple[str, str, str], ...] = (
    (
        "Which tool would you use to drive a nail into a wall?",
        "hammer",
        (
            "You would use a hammer. Hold the nail upright, tap it gently until it stands by "
            "itself, and then strike it more firmly."
        ),
    ),
    (
        "Which tool do you need to tighten a bolt?",
        "wrench",
        ("You need a wrench that fits the head of the bolt. Turning it clockwise normally tightens the bolt."),
    ),
    (
        "Which tool is best for cutting a wooden plank in two?",
        "saw",
        ("A saw is the best choice. Mark a line first, hold the plank firmly, and cut with long, even strokes."),
    ),
    (
        "What would you use to check whether a shelf is perfectly horizontal?",
        "level",
        ("Use a spirit level. Lay it on the shelf and adjust the shelf until the bubble sits exactly in the middle."),
    ),
    (
        "What would you use to turn a screw?",
        "screwdriver",
        (
            "You would use a screwdriver whose tip matches the slot in the screw, so that it grips "
            "well and does not slip."
        ),
    ),
    (
        "What do people use to keep dry when they walk in the rain?",
        "umbrella",
        (
            "People usually carry an umbrella, which keeps the rain off their head and shoulders. A "
            "raincoat also helps on windy days."
        ),
    ),
    (
        "What would you use to see stars that are too faint for your eyes?",
        "telescope",
        ("You would use a telescope. It gathers much more light than your eyes, so faint stars become visible."),
    ),
    (
        "What would you use to look at tiny cells in a drop of pond water?",
        "microscope",
        ("You would use a microscope. Its lenses magnify the drop so much that single cells can be seen."),
    ),
    (
        "What should you put on your head when riding a bicycle?",
        "helmet",
        ("You should wear a helmet that fits snugly. If you fall, it protects your head from a serious injury."),
    ),
    (
        "What would you use to sweep crumbs off the kitchen floor?",
        "broom",
        ("A broom is the simplest choice. Sweep the crumbs into one pile and pick them up with a dustpan."),
    ),
    (
        "What would you use to find north while hiking without a phone?",
        "compass",
        (
            "You would use a compass. Its needle lines up with the magnetic field of the Earth and "
            "points roughly north."
        ),
    ),
    (
        "What is used to weigh ingredients when baking?",
        "scale",
        ("A kitchen scale is used to weigh ingredients. It is more exact than measuring with cups or spoons."),
    ),
    (
        "What would you use to drain water from cooked pasta?",
        "colander",
        (
            "You would use a colander. Place it in the sink and pour the pasta in, so that the "
            "water runs out through the holes."
        ),
    ),
    (
        "Which kitchen tool would you use to remove the skin from a potato?",
        "peeler",
        (
            "A vegetable peeler is the handiest tool. It takes off a thin layer of skin and wastes "
            "very little of the potato."
        ),
    ),
    (
        "What would you use to water the plants in a garden bed from far away?",
        "hose",
        (
            "You would use a garden hose. A spray nozzle at the end lets you reach distant plants "
            "without flooding the nearer ones."
        ),
    ),
    (
        "What would you use to gather fallen leaves on a lawn?",
        "rake",
        (
            "A rake is made for this job. Its wide row of teeth pulls the leaves into a pile "
            "without digging up the grass."
        ),
    ),
    (
        "What would you use to dig a hole for a young tree?",
        "shovel",
        ("You would use a shovel. Dig the hole about twice as wide as the roots, so that they can spread easily."),
    ),
    (
        "What do you use to lock a front door?",
        "key",
        ("You use a key. It moves a bolt into the frame, so that the door cannot be opened from outside."),
    ),
    (
        "What would you use to keep milk fresh for several days?",
        "refrigerator",
        ("You would keep it in a refrigerator. The low temperature slows down the bacteria that make milk turn sour."),
    ),
    (
        "What do you use to join sheets of paper at one corner?",
        "stapler",
        (
            "You can use a stapler. It pushes a small metal staple through the sheets and bends its "
            "ends to hold them together."
        ),
    ),
    (
        "What is the best thing to use for wiping up a spilled drink?",
        "cloth",
        (
            "An absorbent cloth works best. Lay it on the spill first to soak up the liquid, and "
            "then wipe the surface clean."
        ),
    ),
    (
        "What would you use to remove pencil marks from paper?",
        "eraser",
        ("You would use an eraser. Rub gently and brush away the crumbs, so that the paper does not tear or smudge."),
    ),
    (
        "What would you use to take wrinkles out of a cotton shirt?",
        "iron",
        ("You would use an iron. The heat and a little steam relax the fibers, so the shirt becomes smooth."),
    ),
    (
        "What would you use to see in a dark tent at night?",
        "flashlight",
        (
            "A flashlight is the safest choice. Candles give light too, but an open flame in a tent "
            "can easily start a fire."
        ),
    ),
    (
        "What would you use to reach a lamp on a high ceiling?",
        "ladder",
        ("You would use a sturdy ladder. Set it on level ground, and ask someone to hold it if you can."),
    ),
    (
        "What is used to put out a small fire in a kitchen or an office?",
        "extinguisher",
        (
            "A fire extinguisher is used. Aim it at the base of the flames, and leave and call for "
            "help if the fire keeps growing."
        ),
    ),
    (
        "What would you sew on a shirt with, apart from a button and thread?",
        "needle",
        ("You would need a needle. It carries the thread through the cloth and through the holes of the button."),
    ),
    (
        "What would you use to cut a piece of fabric or paper?",
        "scissors",
        ("You would use scissors. Sharp ones give a clean edge, while dull ones tend to fold or tear the material."),
    ),
    (
        "What should you apply to your skin before a long day at the beach?",
        "sunscreen",
        (
            "You should apply sunscreen, and put on more every couple of hours and after swimming, "
            "so that you do not get burned."
        ),
    ),
    (
        "What do swimmers who cannot swim well wear on a boat?",
        "life jacket",
        ("They wear a life jacket. It keeps a person floating with the head above water, even without any swimming."),
    ),
    (
        "What would you use to pump air into a flat bicycle tire?",
        "pump",
        (
            "You would use a bicycle pump. If the tire goes flat again soon, the inner tube "
            "probably has a hole that needs a patch."
        ),
    ),
    (
        "What would you look at to find out the date of next Friday?",
        "calendar",
        ("You would look at a calendar, either on the wall or on your phone, and find Friday in the following week."),
    ),
    (
        "What is used to carry a heavy load of bricks across a garden?",
        "wheelbarrow",
        ("A wheelbarrow is useful here. Most of the weight rests on the wheel, so you only have to lift the handles."),
    ),
    (
        "What would you use to grip and pull out an old bent nail?",
        "pliers",
        ("Pliers can grip and pull out a bent nail. The claw on the back of a hammer may also do the job."),
    ),
    (
        "What would you use to measure how wide a window is?",
        "tape measure",
        (
            "You would use a tape measure. Pull it from one edge to the other and keep it straight "
            "to get the correct width."
        ),
    ),
    (
        "What is worn to protect the eyes when drilling?",
        "goggles",
        "Safety goggles are worn when drilling. They stop chips and dust from flying into the eyes.",
    ),
)

# Question, answer.
ADVICE: tuple[tuple[str, str], ...] = (
    (
        "What should you do if you smell gas in your home?",
        (
            "Leave the building at once and open windows on your way if you can. Do not use any "
            "switches or flames, and call the gas emergency line from outside."
        ),
    ),
    (
        "What should you do if a pan of oil catches fire?",
        (
            "Turn off the heat and cover the pan with a lid to cut off the air. Never pour water on "
            "it, because the burning oil would splatter and spread the fire."
        ),
    ),
    (
        "What is a good thing to do if you cut your finger while cooking?",
        (
            "Rinse the cut under clean running water, press a clean cloth on it until the bleeding "
            "stops, and cover it with a bandage. See a doctor if it is deep."
        ),
    ),
    (
        "What should I do if I burn my hand lightly on a hot pan?",
        (
            "Hold your hand under cool running water for at least ten minutes. Do not put ice or "
            "butter on it, and see a doctor if the burn is large or blistered."
        ),
    ),
    (
        "What should a hiker do when a thunderstorm comes up?",
        (
            "The hiker should move down from peaks and open ridges, keep away from single tall "
            "trees, and wait in a building or a car if one is near."
        ),
    ),
    (
        "What should you do if you get lost in a big shopping center as a visitor?",
        (
            "Look for a map near the entrances or escalators, or ask someone at an information desk "
            "or in a shop. You can also agree with friends on one place to meet."
        ),
    ),
    (
        "What should I do if I spill water on my laptop?",
        (
            "Turn it off and unplug it right away, then turn it upside down so the water can run "
            "out. Let it dry for a day or two, or take it to a repair shop."
        ),
    ),
    (
        "What should you do before you cross a busy street?",
        (
            "Stop at the edge, look both ways and listen for cars. Use a crossing if there is one, "
            "and make sure that the drivers have really seen you."
        ),
    ),
    (
        "What should I do if my car will not start on a cold morning?",
        (
            "Check first whether the lights come on. If they are weak, the battery is probably "
            "flat, so use jumper cables with another car or call a roadside service."
        ),
    ),
    (
        "What should you do when an ambulance with a siren comes up behind your car?",
        (
            "Stay calm, slow down and pull over to the side when it is safe, so that the ambulance "
            "can pass. Check for other emergency vehicles before you drive on."
        ),
    ),
    (
        "What can you do if you cannot fall asleep at night?",
        (
            "Put your phone away, keep the room dark and cool, and try reading something calm. If "
            "you are still awake after twenty minutes, get up briefly and relax elsewhere."
        ),
    ),
    (
        "What should you do if you find a wallet on the sidewalk?",
        (
            "Look for a name or a phone number inside and try to contact the owner. Otherwise hand "
            "it in at a police station or a lost property office."
        ),
    ),
    (
        "What should I do if I am going to be late for a meeting?",
        (
            "Send a short message as soon as you know, say when you expect to arrive, and "
            "apologize. That way the others can start without you or move the meeting."
        ),
    ),
    (
        "What should you do with leftovers that you want to eat tomorrow?",
        (
            "Let them cool for a short while, put them into a closed container, and store them in "
            "the refrigerator within two hours. Reheat them until they are steaming hot."
        ),
    ),
    (
        "What should you do if a friend tells you that they feel very sad?",
        (
            "Listen without judging, take their feelings seriously, and ask how you could help. If "
            "the sadness does not pass, encourage them to talk to a professional."
        ),
    ),
    (
        "What is a sensible thing to do before a long car trip?",
        (
            "Check the tire pressure, the oil and the lights, fill the tank, and pack water and "
            "snacks. It also helps to plan breaks about every two hours."
        ),
    ),
    (
        "What should you do if you accidentally break something in a shop?",
        (
            "Tell a member of staff honestly what happened and offer to pay for it. Keep other "
            "customers away from sharp pieces until they have been cleaned up."
        ),
    ),
    (
        "What should I do if I receive a package that belongs to my neighbor?",
        (
            "Do not open it. Bring it to your neighbor when they are at home, or leave a note on "
            "their door so they know that you have it."
        ),
    ),
    (
        "What should you do if your clothes catch fire?",
        (
            "Stop where you are, drop to the ground, cover your face and roll over until the flames "
            "are out. Running would only feed the fire with air."
        ),
    ),
    (
        "What should you do before you change a light bulb?",
        (
            "Switch off the lamp and, if possible, the power. Let the old bulb cool down, stand on "
            "something stable, and then unscrew it gently."
        ),
    ),
    (
        "What is the right thing to do if you bump into someone by accident?",
        (
            "Say that you are sorry and ask whether the person is all right. If you made them drop "
            "something, help to pick it up."
        ),
    ),
    (
        "What should you do if there is an earthquake while you are indoors?",
        (
            "Drop to the floor, take cover under a sturdy table and hold on until the shaking "
            "stops. Stay away from windows and heavy furniture."
        ),
    ),
    (
        "What can I do to keep my houseplants alive during a two-week vacation?",
        (
            "Water them well before you leave, move them out of strong sun, and ask a neighbor to "
            "look in once. A slow watering globe works too."
        ),
    ),
    (
        "What should you do if you swallow something and a label says it is poisonous?",
        (
            "Call a poison control center or the emergency number immediately and keep the package "
            "at hand. Do not try to vomit unless you are told to."
        ),
    ),
    (
        "What should you do when the power goes out at home in the evening?",
        (
            "Use a flashlight, check whether the neighbors are dark too, and look at the fuse box. "
            "Keep the refrigerator closed so that the food stays cold."
        ),
    ),
    (
        "What should I do if I forget the password for my email account?",
        (
            'Use the "forgot password" link on the login page and follow the steps sent to your '
            "phone or backup address. Then choose a strong new password."
        ),
    ),
    (
        "What should you do if a stranger online asks for your bank details?",
        (
            "Do not share them. A real bank never asks for your full details by message, so block "
            "the sender and report the request."
        ),
    ),
    (
        "What should I do if milk smells sour?",
        (
            "Throw it away and do not drink it, since it has probably spoiled. Rinse the container, "
            "and check that your refrigerator is cold enough."
        ),
    ),
    (
        "How should you carry a pair of sharp scissors across a room?",
        (
            "Hold the closed blades in your fist with the points facing down, and walk slowly. If "
            "you hand them over, offer the handles first."
        ),
    ),
    (
        "How can you stay safe when walking along a dark road at night?",
        (
            "Wear bright or reflective clothes, carry a light, and walk on the side facing the "
            "traffic so that you can see cars coming."
        ),
    ),
    (
        "What should I bring to a picnic on a hot day?",
        (
            "Bring plenty of water, food that does not spoil fast, sunscreen, hats and a blanket. A "
            "cooler with ice packs keeps drinks and salads fresh."
        ),
    ),
    (
        "What should you do if a wasp lands on your arm?",
        (
            "Stay still and calm, or blow on it very gently, and it will normally fly off. Hitting "
            "it makes a sting much more likely."
        ),
    ),
    (
        "What should I do if I have a job interview tomorrow?",
        (
            "Read about the company, prepare answers to common questions, and lay out suitable "
            "clothes. Check the route as well, so that you arrive ten minutes early."
        ),
    ),
    (
        "What should you do when your bus does not arrive?",
        (
            "Check the timetable or an app for delays first. If you would be late, look for another "
            "line, walk to the next station, or call the person waiting for you."
        ),
    ),
    (
        "What should you do if you see someone fall and not get up?",
        (
            "Go to them, ask if they can hear you, and call the emergency number if they are hurt "
            "or do not respond. Stay until help arrives."
        ),
    ),
    (
        "What should I do with old batteries?",
        (
            "Take them to a collection box, which many supermarkets have, and do not put them in "
            "the household trash. They contain substances that can harm the environment."
        ),
    ),
    (
        "Why do people wear coats in winter?",
        (
            "A coat traps a layer of air close to the body. That air warms up and keeps the cold "
            "outside, so the person loses less heat."
        ),
    ),
    (
        "Why do we put food in a freezer?",
        (
            "The deep cold almost stops the growth of bacteria and mold. Food therefore stays safe "
            "to eat for months instead of days."
        ),
    ),
    (
        "Why should you wash your hands before eating?",
        (
            "Your hands touch many surfaces during the day and pick up germs. Washing them with "
            "soap removes most germs before they can get into your food."
        ),
    ),
    (
        "Why do cars have seat belts?",
        (
            "In a crash the car stops suddenly, but the people inside keep moving. A seat belt "
            "holds them in place, so they do not hit the dashboard or the windshield."
        ),
    ),
    (
        "Why do people water plants?",
        (
            "Plants need water to move nutrients from the roots to the leaves and to stay firm. "
            "Without it they wilt and finally die."
        ),
    ),
    (
        "Why do many houses in snowy places have steep roofs?",
        (
            "On a steep roof the snow slides off more easily. A flat roof would have to carry the "
            "full weight of the snow and could be damaged."
        ),
    ),
    (
        "Why is it a bad idea to text while driving?",
        (
            "Texting takes your eyes off the road and your mind off driving. Even two seconds are "
            "enough to miss a braking car or a child in the street."
        ),
    ),
    (
        "Why should you not look directly at the Sun?",
        (
            "Its light is so strong that it can damage the retina at the back of your eye, and you "
            "might not feel any pain while that happens."
        ),
    ),
    (
        "Why do people save money?",
        (
            "Savings help with unexpected costs such as a broken car, and they allow people to pay "
            "for larger plans like a home, a trip or retirement."
        ),
    ),
    (
        "Why do bakers put yeast in bread dough?",
        (
            "Yeast feeds on sugars in the dough and gives off bubbles of gas. The bubbles make the "
            "dough rise, so the bread becomes soft and light."
        ),
    ),
    (
        "Why do we turn off the lights when we leave a room?",
        (
            "Lights that nobody needs still use electricity. Turning them off saves money and "
            "energy, and the bulbs last longer too."
        ),
    ),
    (
        "Why do stores put milk at the back?",
        (
            "Many shoppers come for milk, so they have to walk past other shelves to get it. They "
            "may then notice and buy more. The cold storage is also often at the back."
        ),
    ),
    (
        "Why do people wear sunglasses?",
        (
            "Sunglasses reduce bright light and glare, so it is easier to see on sunny days. Good "
            "ones also block ultraviolet rays that can harm the eyes."
        ),
    ),
    (
        "Why do runners drink water during a race?",
        (
            "They sweat a lot to keep cool and lose water in this way. Drinking replaces it and "
            "helps to prevent dizziness and cramps."
        ),
    ),
    (
        "Why should medicine be kept out of the reach of children?",
        (
            "Children may mistake pills for candy, and a dose meant for an adult can make a small "
            "body very ill. A high, locked cabinet is best."
        ),
    ),
    (
        "Why do people knock before entering a room?",
        (
            "Knocking is a polite warning. It gives the person inside the time to finish something "
            "private and to say whether it is a good moment."
        ),
    ),
    (
        "Why does a wet floor need a warning sign?",
        (
            "A wet floor is slippery, but the water is often hard to see. The sign tells people to "
            "walk slowly, so that nobody falls."
        ),
    ),
    (
        "Why do people stand in line at a bakery?",
        (
            "Standing in line makes sure that everybody is served in the order they arrived. It is "
            "fair and avoids arguments at the counter."
        ),
    ),
    (
        "Why do we let hot soup cool before eating it?",
        (
            "Very hot soup can burn the mouth and the tongue. After a few minutes it is still warm "
            "but safe, and the flavors are easier to taste."
        ),
    ),
    (
        "Why do hikers tell somebody about their route?",
        (
            "If they do not come back in time, that person knows where to look and can send help "
            "quickly. This matters most where phones have no signal."
        ),
    ),
    (
        "Why are fire exits kept clear?",
        (
            "In an emergency many people have to leave fast, perhaps in smoke or darkness. Boxes or "
            "furniture in the way could trap them."
        ),
    ),
    (
        "Why do people use bookmarks?",
        (
            "A bookmark shows where you stopped reading, so you can carry on later without "
            "searching. It also saves you from folding the corner of the page."
        ),
    ),
    (
        "Why do many people set an alarm clock?",
        (
            "While sleeping, people cannot keep track of time. An alarm wakes them at the right "
            "moment, so that they get to work or school on time."
        ),
    ),
    (
        "Why should you read a contract before signing it?",
        (
            "By signing you agree to everything in it, including costs and deadlines. Reading it "
            "first lets you ask questions or change unfair terms."
        ),
    ),
    (
        "Why do babies cry?",
        (
            "Babies cannot speak yet, so crying is their way to say that they are hungry, tired, "
            "uncomfortable or in need of comfort."
        ),
    ),
    (
        "Why do chefs wear hats or hairnets?",
        (
            "They keep hair out of the food and absorb sweat in a hot kitchen. This is cleaner and "
            "more pleasant for the guests."
        ),
    ),
    (
        "Why do we shake a bottle of salad dressing before pouring it?",
        (
            "Oil and vinegar separate when they stand for a while. Shaking mixes them again, so "
            "every serving tastes the same."
        ),
    ),
    (
        "Why do people put salt on icy roads?",
        (
            "Salt lowers the temperature at which water freezes. The ice melts and the road becomes "
            "less slippery, unless it is extremely cold."
        ),
    ),
    (
        "Why is it helpful to make a shopping list?",
        (
            "A list helps you to remember what you need and to avoid things you do not need. It "
            "saves time in the store and often money as well."
        ),
    ),
    (
        "Why do bicycles have lights?",
        (
            "Lights help the rider to see the road in the dark, and above all they let drivers "
            "notice the bicycle in time."
        ),
    ),
    (
        "Why do people keep receipts?",
        (
            "A receipt proves when and where something was bought and for how much. It is usually "
            "needed to return an item or to use a warranty."
        ),
    ),
    (
        "Why should you test a smoke alarm regularly?",
        (
            "An alarm with an empty battery cannot warn you. Pressing the test button once a month "
            "shows that it will wake you if there is a fire."
        ),
    ),
    (
        "Why do people close the curtains on a hot day?",
        (
            "The curtains keep direct sunlight out of the room. Less sunlight means less heat, so "
            "the room stays cooler without a fan."
        ),
    ),
    (
        "Why should you stretch or warm up before exercise?",
        (
            "Warming up raises the heart rate slowly and makes the muscles more flexible, which "
            "lowers the risk of a strain."
        ),
    ),
    (
        "Why do dogs need to be walked?",
        (
            "Walking gives dogs exercise, a chance to relieve themselves and many interesting "
            "smells. Without it they get bored and may chew things at home."
        ),
    ),
    (
        "Why is it wise to back up the photos on a phone?",
        (
            "Phones can be lost, stolen or broken at any time. With a second set stored elsewhere, "
            "the pictures are still safe."
        ),
    ),
    (
        "Why do people wear gloves when they handle hot trays?",
        (
            "The thick fabric of oven gloves lets heat through only slowly. That gives enough time "
            "to move the tray without burning the hands."
        ),
    ),
    (
        "Why do we peel bananas before eating them?",
        ("The peel is tough, bitter and possibly dirty or sprayed. The soft, sweet part that people enjoy is inside."),
    ),
)

# Question, explanation of two or three sentences.
EXPLANATIONS: tuple[tuple[str, str], ...] = (
    (
        "Why is the sky blue?",
        (
            "Sunlight contains all colors. The gases in the air scatter blue light much more "
            "strongly than red light, so blue light reaches our eyes from every direction."
        ),
    ),
    (
        "How does a rainbow form?",
        (
            "A rainbow forms when sunlight enters raindrops, bends, reflects inside them and bends "
            "again on the way out. Each color bends by a slightly different amount, so the light "
            "spreads into a band of colors."
        ),
    ),
    (
        "What causes the seasons?",
        (
            "The axis of the Earth is tilted. During one part of the year the northern half leans "
            "toward the Sun and has summer, and half a year later it leans away and has winter."
        ),
    ),
    (
        "What causes day and night?",
        (
            "The Earth turns once around its axis in about 24 hours. The side that faces the Sun "
            "has day, while the side that faces away from it has night."
        ),
    ),
    (
        "Why does the Moon change its shape during the month?",
        (
            "The Moon does not really change. As it moves around the Earth, we see different parts "
            "of its sunlit half, from a thin crescent to a full disk."
        ),
    ),
    (
        "What is a solar eclipse?",
        (
            "During a solar eclipse the Moon passes between the Sun and the Earth and blocks the "
            "sunlight for some places. It lasts only a few minutes at any one spot."
        ),
    ),
    (
        "How do tides work?",
        (
            "The Moon, and to a smaller degree the Sun, pulls on the oceans. As the Earth turns, "
            "coasts move through the bulges of water, so most see two high tides each day."
        ),
    ),
    (
        "Why does it rain?",
        (
            "Water evaporates from seas and land and rises as vapor. High in the cool air it "
            "condenses into tiny drops that form clouds, and when the drops grow heavy enough they "
            "fall as rain."
        ),
    ),
    (
        "What is thunder?",
        (
            "A flash of lightning heats the air around it in an instant. The hot air expands so "
            "fast that it makes a shock wave, and we hear that wave as thunder."
        ),
    ),
    (
        "Why do we see lightning before we hear the thunder?",
        (
            "Light travels almost a million times faster than sound. The flash reaches us at once, "
            "while the sound needs about three seconds for every kilometer."
        ),
    ),
    (
        "What is fog?",
        (
            "Fog is a cloud that touches the ground. It forms when moist air cools near the surface "
            "and the water vapor condenses into very small drops that float in the air."
        ),
    ),
    (
        "How does snow form?",
        (
            "In very cold clouds, water vapor freezes onto tiny particles and grows into ice "
            "crystals. The crystals stick together as flakes and fall when they are heavy enough."
        ),
    ),
    (
        "What makes the wind blow?",
        (
            "The Sun warms some places more than others. Warm air rises, cooler air flows in to "
            "take its place, and this moving air is what we feel as wind."
        ),
    ),
    (
        "What is climate change?",
        (
            "Climate change is a long-term shift in temperatures and weather patterns. Today it is "
            "mainly caused by burning coal, oil and gas, which adds gases to the air that trap "
            "heat."
        ),
    ),
    (
        "How does a refrigerator keep food cold?",
        (
            "A refrigerator pumps a special fluid through pipes. The fluid takes up heat inside the "
            "cabinet as it evaporates and gives that heat off at the back of the appliance as it "
            "condenses."
        ),
    ),
    (
        "How does a microwave oven heat food?",
        (
            "A microwave oven sends out waves that make the water molecules in food move back and "
            "forth very quickly. This motion turns into heat, which spreads through the food and "
            "cooks it."
        ),
    ),
    (
        "How does soap clean greasy hands?",
        (
            "One end of a soap molecule sticks to grease and the other end likes water. Soap "
            "surrounds the grease in small droplets, which the water can then wash away."
        ),
    ),
    (
        "How does a battery work?",
        (
            "A battery contains chemicals that react with each other. The reaction pushes electrons "
            "out of one end and, through a circuit, back into the other, which gives us an electric "
            "current."
        ),
    ),
    (
        "How do airplanes stay in the air?",
        (
            "The wings are shaped and tilted so that they push air downward as the plane moves "
            "forward. In return the air pushes the wings up, and this lift carries the weight of "
            "the plane."
        ),
    ),
    (
        "Why do ships made of steel float?",
        (
            "A ship is mostly hollow, so it is lighter than the water it pushes aside. The water "
            "pushes back upward with enough force to carry the ship."
        ),
    ),
    (
        "How does a magnet work?",
        (
            "In a magnet, many tiny magnetic regions point the same way, so their effects add up to "
            "a strong field. That field pulls on metals such as iron and nickel."
        ),
    ),
    (
        "How does a compass find north?",
        (
            "The needle of a compass is a small magnet that can turn freely. It lines up with the "
            "magnetic field of the Earth, so one end points roughly north."
        ),
    ),
    (
        "What is electricity?",
        (
            "Electricity is the effect of electric charges, usually electrons. When charges flow "
            "through a wire they carry energy, which can light lamps, heat ovens or run motors."
        ),
    ),
    (
        "How does a light bulb give light?",
        (
            "In an old bulb a thin wire gets so hot that it glows. A modern LED bulb sends current "
            "through a semiconductor, which turns much more of the energy into light."
        ),
    ),
    (
        "How does the internet work, in simple terms?",
        (
            "The internet connects computers all over the world. Data is cut into small packets, "
            "each packet is passed along by routers, and the receiving computer puts them together "
            "again."
        ),
    ),
    (
        "What is a web browser?",
        (
            "A web browser is a program for viewing websites. It asks a server for a page, receives "
            "the files, and draws the text, pictures and links on your screen."
        ),
    ),
    (
        "What is a password manager?",
        (
            "A password manager is a program that stores your passwords in encrypted form. You "
            "remember one strong main password, and it fills in a different one for every site."
        ),
    ),
    (
        "What is cloud storage?",
        (
            "Cloud storage means keeping files on computers of a provider instead of only on your "
            "own device. You can open the files from anywhere with an internet connection."
        ),
    ),
    (
        "What is software?",
        (
            "Software is the set of instructions that tells a computer what to do. Apps, games and "
            "operating systems are all software, while the parts you can touch are called hardware."
        ),
    ),
    (
        "What is artificial intelligence?",
        (
            "Artificial intelligence is software that does tasks which normally need human "
            "thinking, such as understanding text or recognizing pictures. Many systems learn "
            "patterns from large numbers of examples."
        ),
    ),
    (
        "How does GPS know where I am?",
        (
            "Your phone receives signals from several satellites that send the exact time. From the "
            "tiny delays of the signals it works out the distance to each satellite and so your "
            "position."
        ),
    ),
    (
        "How does a vaccine work?",
        (
            "A vaccine shows the immune system a harmless piece or weakened form of a germ. The "
            "body learns to recognize it, so it can react quickly if the real germ appears."
        ),
    ),
    (
        "Why do we sleep?",
        (
            "Sleep gives the body time to repair itself and the brain time to sort memories. "
            "Without enough sleep, people find it harder to concentrate and fall ill more easily."
        ),
    ),
    (
        "Why do we yawn?",
        (
            "Nobody knows for certain. Yawning often happens when we are tired or bored, and "
            "scientists think that it may help to keep the brain alert or to cool it."
        ),
    ),
    (
        "Why do we sweat?",
        (
            "Sweat cools the body. When it evaporates from the skin it carries heat away, which "
            "keeps our temperature from rising too far during exercise or on hot days."
        ),
    ),
    (
        "Why do we sneeze?",
        (
            "When dust, pollen or germs irritate the nose, the body gets rid of them with a sudden "
            "burst of air. A sneeze is a reflex, so it is hard to hold back."
        ),
    ),
    (
        "Why do we get hungry?",
        (
            "When the stomach is empty and the level of energy in the blood falls, the body "
            "releases hormones. They tell the brain that it is time to eat."
        ),
    ),
    (
        "How does the heart work?",
        (
            "The heart is a muscle that works like a double pump. The right side sends blood to the "
            "lungs to pick up oxygen, and the left side sends it around the rest of the body."
        ),
    ),
    (
        "How do lungs work?",
        (
            "When you breathe in, air flows into millions of tiny sacs in the lungs. Oxygen passes "
            "from there into the blood, and carbon dioxide passes out to be breathed away."
        ),
    ),
    (
        "What do bones do?",
        (
            "Bones support the body, protect organs such as the brain and heart, and let us move "
            "together with the muscles. Inside many bones, marrow makes new blood cells."
        ),
    ),
    (
        "What is a fever good for?",
        (
            "A fever is a raised body temperature, often during an infection. The extra heat makes "
            "it harder for some germs to grow and helps the immune system to work faster."
        ),
    ),
    (
        "Why is exercise healthy?",
        (
            "Exercise strengthens the heart, the muscles and the bones and helps to control weight. "
            "It also improves sleep and mood, because the body releases chemicals that make us feel "
            "good."
        ),
    ),
    (
        "Why do we need to drink water?",
        (
            "Water carries nutrients, removes waste and keeps our temperature steady. We lose it "
            "all the time by breathing and sweating, so we have to replace it."
        ),
    ),
    (
        "What are vitamins?",
        (
            "Vitamins are substances that the body needs in small amounts to work properly but "
            "mostly cannot make for itself. We get them from foods such as fruit, vegetables, eggs "
            "and fish."
        ),
    ),
    (
        "What is protein?",
        (
            "Protein is a nutrient that the body uses to build and repair muscles, skin and other "
            "tissue. Good sources are beans, eggs, fish, meat, nuts and dairy products."
        ),
    ),
    (
        "Why is too much sugar unhealthy?",
        (
            "Sugar gives a lot of energy but few other nutrients. Eating too much of it can lead to "
            "tooth decay and weight gain, and it raises the risk of diabetes."
        ),
    ),
    (
        "How do teeth get cavities?",
        (
            "Bacteria in the mouth turn sugar into acid. The acid slowly dissolves the hard enamel "
            "of a tooth, and in the end a small hole, called a cavity, is left."
        ),
    ),
    (
        "What is an allergy?",
        (
            "An allergy is a strong reaction of the immune system to something that is harmless to "
            "most people, such as pollen or peanuts. It can cause sneezing, rashes or more serious "
            "problems."
        ),
    ),
    (
        "How do glasses help people to see?",
        (
            "In some eyes the light is focused in front of or behind the retina, so the picture is "
            "blurred. The lenses of glasses bend the light so that it meets in the right place."
        ),
    ),
    (
        "How do plants grow from seeds?",
        (
            "A seed holds a tiny plant and a store of food. With water, air and warmth it sends a "
            "root down and a shoot up, and soon its leaves make new food from sunlight."
        ),
    ),
    (
        "Why do leaves change color in fall?",
        (
            "In fall many trees stop making chlorophyll, the green substance in leaves. As the "
            "green fades, yellow and orange colors become visible, and some leaves also produce "
            "red."
        ),
    ),
    (
        "Why do bees visit flowers?",
        (
            "Bees collect sweet nectar and pollen as food. While they move from flower to flower "
            "they carry pollen along, which lets the plants form seeds and fruit."
        ),
    ),
    (
        "How do fish breathe under water?",
        (
            "Fish take water in through the mouth and push it out over their gills. The thin walls "
            "of the gills take oxygen out of the water and pass it into the blood."
        ),
    ),
    (
        "Why do birds migrate?",
        (
            "Many birds fly to warmer regions in winter, because food becomes scarce in the cold. "
            "They return in spring, when there are plenty of insects and good places for nests."
        ),
    ),
    (
        "Why do cats have whiskers?",
        (
            "Whiskers are stiff hairs with very sensitive roots. They help a cat to feel nearby "
            "objects in the dark and to judge whether a gap is wide enough to pass through."
        ),
    ),
    (
        "What is hibernation?",
        (
            "Hibernation is a deep rest in which some animals spend the winter. Their body "
            "temperature and heartbeat drop, so they can live for months on stored fat."
        ),
    ),
    (
        "What is camouflage?",
        (
            "Camouflage is coloring or shape that makes an animal hard to see in its surroundings. "
            "It helps some animals to hide from enemies and others to get close to their prey."
        ),
    ),
    (
        "What is a food chain?",
        (
            "A food chain shows who eats whom in nature. It starts with plants, which are eaten by "
            "plant-eating animals, and these in turn are eaten by hunters."
        ),
    ),
    (
        "What is an ecosystem?",
        (
            "An ecosystem is a community of living things together with the place they live in. A "
            "pond, for example, includes plants, fish, insects, water and mud, which all affect "
            "each other."
        ),
    ),
    (
        "Why are rainforests important?",
        (
            "Rainforests are home to a huge share of all plant and animal species. They also store "
            "carbon and help to produce rain, so losing them affects the climate far away."
        ),
    ),
    (
        "What is recycling?",
        (
            "Recycling means turning used materials such as paper, glass or metal into new "
            "products. It saves raw materials and energy, and it reduces the amount of waste."
        ),
    ),
    (
        "What is compost?",
        (
            "Compost is a dark, crumbly material made from kitchen scraps and garden waste. Worms, "
            "fungi and bacteria break the waste down, and gardeners use the result to feed plants."
        ),
    ),
    (
        "What is renewable energy?",
        (
            "Renewable energy comes from sources that do not run out, such as sunlight, wind and "
            "flowing water. It usually produces far less pollution than coal or oil."
        ),
    ),
    (
        "How does a solar panel make electricity?",
        (
            "A solar panel contains cells made of silicon. When sunlight hits them it knocks "
            "electrons loose, and the cells guide these electrons into a wire as an electric "
            "current."
        ),
    ),
    (
        "How does a wind turbine work?",
        (
            "Wind pushes on the blades and makes them turn. The turning shaft drives a generator, "
            "which changes the movement into electricity."
        ),
    ),
    (
        "What is gravity?",
        (
            "Gravity is the force that pulls objects with mass toward each other. The Earth has so "
            "much mass that its pull keeps us on the ground and the Moon in orbit."
        ),
    ),
    (
        "What is friction?",
        (
            "Friction is a force that slows things down when surfaces rub against each other. It "
            "lets shoes grip the floor and brakes stop a car, but it also wears parts out."
        ),
    ),
    (
        "What is density?",
        (
            "Density tells how much mass is packed into a certain volume. A stone is denser than a "
            "cork of the same size, which is why the stone sinks and the cork floats."
        ),
    ),
    (
        "Why does ice float on water?",
        (
            "Water expands when it freezes, so ice takes up more space than the same mass of water. "
            "That makes ice less dense, and less dense things float."
        ),
    ),
    (
        "Why does a metal spoon feel colder than a wooden one?",
        (
            "Both spoons have the same temperature as the room. Metal carries heat away from your "
            "hand much faster than wood does, so it feels colder."
        ),
    ),
    (
        "Why does bread go moldy?",
        (
            "Tiny mold spores float in the air and land on the bread. If it is moist and warm "
            "enough they grow into the fuzzy patches that we can see."
        ),
    ),
    (
        "Why does popcorn pop?",
        (
            "Each kernel holds a little water inside a hard shell. When it is heated the water "
            "turns to steam, the pressure rises, and finally the shell bursts and the soft inside "
            "puffs out."
        ),
    ),
    (
        "Why do onions make people cry?",
        (
            "Cutting an onion breaks its cells and releases a gas. The gas irritates the eyes, and "
            "they produce tears to wash it away."
        ),
    ),
    (
        "Why does iron rust?",
        (
            "Iron rusts when it reacts with oxygen and water. The reaction forms a brittle reddish "
            "layer that flakes off, so the metal below can rust as well. Paint or oil helps to "
            "prevent it."
        ),
    ),
    (
        "How is glass made?",
        (
            "Glass is made by heating sand together with soda and lime to a very high temperature "
            "until it melts. The glowing liquid is shaped and then cooled slowly so that it does "
            "not crack."
        ),
    ),
    (
        "How is paper made?",
        (
            "Paper is usually made from wood. The wood is broken down into fibers and mixed with "
            "water, and the wet pulp is spread thinly, pressed and dried into sheets."
        ),
    ),
    (
        "How is cheese made?",
        (
            "Cheese starts as milk. Bacteria and an enzyme make it thicken into curds, the watery "
            "whey is drained off, and the curds are salted, pressed and often left to ripen."
        ),
    ),
    (
        "How is chocolate made?",
        (
            "Cocoa beans are fermented, dried, roasted and ground into a paste. The paste is mixed "
            "with sugar, cocoa butter and sometimes milk, stirred for hours and cooled in molds."
        ),
    ),
    (
        "What is inflation?",
        (
            "Inflation means that prices in general rise over time. The same amount of money then "
            "buys fewer goods and services than before."
        ),
    ),
    (
        "What is interest on a loan?",
        (
            "Interest is the price of borrowing money. The borrower pays back the loan plus a "
            "certain percentage, which rewards the lender for the risk and the wait."
        ),
    ),
    (
        "What is a budget?",
        (
            "A budget is a plan for your money. It lists what you expect to earn and to spend, so "
            "you can see whether you can afford something and how much you can save."
        ),
    ),
    (
        "What are taxes used for?",
        (
            "People and companies pay taxes to the state. The money pays for things that everybody "
            "uses, such as roads, schools, hospitals, courts and the fire service."
        ),
    ),
    (
        "What is insurance?",
        (
            "With insurance, many people each pay a small regular amount into a common fund. If one "
            "of them has an accident or a loss, the fund pays for much of the damage."
        ),
    ),
    (
        "What is a share of a company?",
        (
            "A share is a small part of the ownership of a company. Its owner may receive part of "
            "the profit, and the value of the share can go up or down."
        ),
    ),
    (
        "What does supply and demand mean?",
        (
            "Supply is how much of something is offered, and demand is how much people want to buy. "
            "When demand is higher than supply, prices tend to rise, and they fall when it is "
            "lower."
        ),
    ),
    (
        "What is a democracy?",
        (
            "In a democracy the people hold the power. They choose their government in free "
            "elections, and the law protects rights such as free speech."
        ),
    ),
    (
        "What does a judge do?",
        (
            "A judge leads a trial in court, makes sure that the rules are followed, and decides on "
            "questions of law. In many cases the judge also decides on the sentence."
        ),
    ),
    (
        "What is a constitution?",
        (
            "A constitution is the basic law of a country. It says how the government works, how "
            "its powers are limited, and which rights the people have."
        ),
    ),
    (
        "What is a museum for?",
        (
            "A museum collects and protects objects that matter for art, history or science. It "
            "shows them to visitors, explains them, and lets researchers study them."
        ),
    ),
    (
        "What does a librarian do?",
        (
            "A librarian chooses and organizes books and other media and helps visitors to find "
            "what they need. Many also run reading groups or teach people how to search for "
            "information."
        ),
    ),
    (
        "What is a metaphor?",
        (
            "A metaphor describes one thing as if it were another in order to create a picture in "
            "the mind. Calling a busy office a beehive is an example."
        ),
    ),
    (
        "What is the difference between weather and climate?",
        (
            "Weather is what happens in the air on a certain day, such as rain or sunshine. Climate "
            "is the usual pattern of weather in a region over many years."
        ),
    ),
    (
        "What is the difference between a virus and a bacterium?",
        (
            "A bacterium is a living cell that can multiply by itself, while a virus is much "
            "smaller and needs the cells of another living thing. Antibiotics work only against "
            "bacteria."
        ),
    ),
    (
        "What is the difference between baking and frying?",
        (
            "Baking cooks food with dry, hot air in an oven. Frying cooks it in hot oil or fat, "
            "which makes it crisp more quickly but also adds more fat."
        ),
    ),
    (
        "What is the difference between a lake and a river?",
        (
            "A lake is a body of mostly still water with land all around it. A river is water that "
            "flows along a channel, usually toward a lake or the sea."
        ),
    ),
    (
        "What is the difference between a simile and a metaphor?",
        (
            'A simile compares two things with words such as "like" or "as", for example "as brave '
            'as a lion". A metaphor says that one thing is the other.'
        ),
    ),
    (
        "How does an elevator work?",
        (
            "An elevator car hangs on strong steel cables that run over a wheel driven by a motor. "
            "A heavy counterweight on the other end balances the car, so little energy is needed."
        ),
    ),
    (
        "How do traffic lights make streets safer?",
        (
            "Traffic lights tell drivers and walkers whose turn it is. Because only some directions "
            "may go at one time, there are fewer crashes and fewer traffic jams."
        ),
    ),
    (
        "How does a thermos bottle keep drinks hot?",
        (
            "A thermos has two walls with almost no air between them. Heat can hardly cross this "
            "gap, and the shiny surface reflects heat back, so the drink stays hot for hours."
        ),
    ),
    (
        "How does a bicycle stay upright while it moves?",
        (
            "A moving bicycle steers slightly into the direction in which it begins to fall, partly "
            "because of its shape and partly because of the rider. This brings the wheels back "
            "under the weight."
        ),
    ),
    (
        "How does a zipper work?",
        (
            "A zipper has two rows of small teeth. The slider presses them together at the right "
            "angle, so that they lock into each other, and pulls them apart when it moves back."
        ),
    ),
    (
        "How do noise-canceling headphones work?",
        (
            "Small microphones pick up the noise around you. The headphones then play a sound wave "
            "that is exactly reversed, and the two waves cancel each other, so you hear much less "
            "noise."
        ),
    ),
    (
        "Why do we have leap years?",
        (
            "The Earth needs about 365 and a quarter days to go around the Sun. An extra day "
            "roughly every four years keeps the calendar in step with the seasons."
        ),
    ),
    (
        "Why are there time zones?",
        (
            "The Earth turns, so the Sun rises earlier in the east than in the west. Time zones let "
            "each region set its clocks so that noon is near the middle of the day."
        ),
    ),
    (
        "Why does the sea taste salty?",
        (
            "Rain washes small amounts of salts out of rocks, and rivers carry them to the sea. The "
            "water evaporates again but the salt stays, so it has built up over millions of years."
        ),
    ),
)
