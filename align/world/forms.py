"""Every sentence form of the world, by frame.

`{slot}` names a word class of the lexicon; a digit distinguishes slots of the same class. All forms of a frame have the
same slots, and the first form fixes their order.
"""

from __future__ import annotations

FACTS: dict[str, tuple[str, ...]] = {
    "home": (
        "{person} lives in {village}.",
        "The home of {person} is in {village}.",
        "{person} has a house in {village}.",
    ),
    "job": (
        "{person} is a {job}.",
        "{person} works as a {job}.",
        "{person} earns a living as a {job}.",
    ),
    "pet": (
        "{person} keeps a {pet}.",
        "The pet of {person} is a {pet}.",
        "{person} has a {pet} at home.",
    ),
    "likes": (
        "{person} likes {food} most of all.",
        "The favourite food of {person} is {food}.",
        "{person} would eat {food} every day.",
    ),
    "eats": (
        "A {animal} eats {fodder}.",
        "The food of a {animal} is {fodder}.",
        "A {animal} lives on {fodder}.",
    ),
    "dwells": (
        "A {animal} lives in the {habitat}.",
        "The home of a {animal} is the {habitat}.",
        "You can find a {animal} in the {habitat}.",
    ),
    "legs": ("A {animal} has {num} legs.", "A {animal} walks on {num} legs."),
    "made": (
        "A {thing} is made of {material}.",
        "People make a {thing} out of {material}.",
        "It takes {material} to make a {thing}.",
    ),
    "price": (
        "A {thing} costs {num} coins.",
        "The price of a {thing} is {num} coins.",
        "You pay {num} coins for a {thing}.",
    ),
    "market": (
        "The market of {village} is on {day}.",
        "{village} has its market on {day}.",
        "People go to the market of {village} on {day}.",
    ),
    "stranger": (
        "Nobody in the valley knows {stranger}.",
        "{stranger} is a stranger here.",
        "Nothing is known about {stranger}.",
    ),
}

EVENTS: dict[str, tuple[str, ...]] = {
    "at": (
        "The {thing} is in the {spot}.",
        "You can find the {thing} in the {spot}.",
        "The place of the {thing} is the {spot}.",
    ),
    "put": ("{person} put the {thing} in the {spot}.", "{person} left the {thing} in the {spot}."),
    "has": ("{person} has the {thing}.", "The {thing} is with {person}.", "{person} is the one with the {thing}."),
    "gave": ("{person} gave the {thing} to {person2}.", "{person2} got the {thing} from {person}."),
    "on": (
        "{person} {past} the {thing} on {day}.",
        "On {day} {person} {past} the {thing}.",
        "It was on {day} that {person} {past} the {thing}.",
    ),
    "colour": ("The {thing} is {colour}.", "The colour of the {thing} is {colour}.", "It is a {colour} {thing}."),
    "did": (
        "{person} {past} the {thing} in the {spot}.",
        "In the {spot}, {person} {past} the {thing}.",
    ),
    "does": (
        "{person} {present} the {thing} in the {spot}.",
        "In the {spot}, {person} {present} the {thing}.",
    ),
    "will": (
        "{person} will {base} the {thing} in the {spot}.",
        "In the {spot}, {person} will {base} the {thing}.",
    ),
    "never": (
        "{person} did not {base} the {thing} in the {spot}.",
        "In the {spot}, {person} did not {base} the {thing}.",
    ),
    "both": (
        "{people} {past} the {thing} in the {spot}.",
        "In the {spot}, {people} {past} the {thing}.",
    ),
    "busy": (
        "{person} {past} {things} in the {spot}.",
        "In the {spot}, {person} {past} {things}.",
    ),
    "wish": (
        "{person} wants to see {person2} in the {spot} on {day}.",
        "{person} hopes to meet {person2} in the {spot} on {day}.",
    ),
    "holds": ("{person} has {things}.", "{person} owns {things}.", "The things of {person} are {things}."),
}

AMOUNTS: dict[str, tuple[str, ...]] = {
    "count": ("{person} has {num} {goods}.",),
    "gets": ("{person} gets {num} more {goods}.", "{person} finds {num} more {goods}."),
    "gives": ("{person} gives away {num} {goods}.", "{person} loses {num} {goods}."),
    "each": ("One of the {goods} costs {num} coins.",),
    "wants": ("{person} wants to buy {num} {goods}.",),
    "age": ("{person} is {num} years old.",),
    "step": ("First that makes {eq} {num} {goods}.", "At first that is {eq} {num} {goods}."),
    "total": (
        "{person} has {eq} {num} {goods} now.",
        "In the end {person} has {eq} {num} {goods}.",
        "That makes {eq} {num} {goods} for {person}.",
    ),
    "cost": (
        "{person} pays {eq} {num} coins.",
        "All in all {person} pays {eq} {num} coins.",
        "That costs {person} {eq} {num} coins.",
    ),
    "final": ("#### {num}",),
    "more": ("{person} has more {goods} than {person2}.", "{person2} has fewer {goods} than {person}."),
    "older": ("{person} is older than {person2}.", "{person2} is younger than {person}."),
    "bigger": ("A {animal} is bigger than a {animal2}.", "A {animal2} is smaller than a {animal}."),
    "dearer": ("A {thing} costs more than a {thing2}.", "A {thing2} is cheaper than a {thing}."),
    "numbers": ("On the wall are the numbers {nums}.", "{nums} are the numbers on the wall."),
    "rising": (
        "From the smallest to the largest they are {nums}.",
        "The smallest comes first: {nums}.",
        "Sorted upwards they are {nums}.",
    ),
    "falling": (
        "From the largest to the smallest they are {nums}.",
        "The largest comes first: {nums}.",
        "Sorted downwards they are {nums}.",
    ),
    "days": ("In the week the order is {words}.", "The days come in the order {words}."),
    "sizes": ("By size the order is {words}.", "From small to big they are {words}."),
    "sheet": ("On the sheet are the words {words}.", "The sheet says {words}."),
    "kinds": ("The {kind} are {words}.", "The words for {kind} are {words}.", "{words} are the {kind}."),
    "others": (
        "The ones that are not {kind} are {words}.",
        "All but the {kind} are {words}.",
        "Leaving out the {kind}, there are {words}.",
    ),
}

TALK: dict[str, tuple[str, ...]] = {
    "rude_request": (
        "Give me the {thing}!",
        "I want the {thing} now!",
        "Hurry up with the {thing}!",
    ),
    "polite_request": (
        "Could you please {hand} me the {thing}?",
        "Would you kindly {hand} me the {thing}?",
        "May I ask you to {hand} me the {thing}?",
    ),
    "thanks": (
        "Dear {name}, thank you for the {thing}.",
        "Dear {name}, I was so glad about the {thing}.",
        "Dear {name}, many thanks for the {thing}.",
    ),
    "invitation": (
        "Dear {name}, please come to the {spot} on {day}.",
        "Dear {name}, will you come to the {spot} on {day}?",
        "Dear {name}, we meet in the {spot} on {day}.",
    ),
    "signed": ("Yours, {name}.", "Best wishes, {name}.", "With love, {name}."),
    "dont_know": (
        "I do not know that.",
        "I cannot tell you that.",
        "I have no answer to that.",
    ),
    "sorry": (
        "I am sorry, but I do not know that.",
        "I am afraid I cannot tell you that.",
        "Sorry, I have no answer to that.",
    ),
    "not_said": ("The text does not say it.", "Nothing in the text tells us.", "It is not in the text."),
    "future": ("Nobody can see the future.", "Only time will tell.", "Nobody can know it today."),
}

STORY: dict[str, tuple[str, ...]] = {
    "went": (
        "{person} went to the {spot} {part}.",
        "{person} walked to the {spot} {part}.",
        "{part}, {person} came to the {spot}.",
    ),
    "met": (
        "There {person} met a {animal}.",
        "A {animal} sat in front of {person}.",
        "{person} saw a {animal} near the door.",
    ),
    "played": (
        "{person} played with the {animal}.",
        "{person} talked to the {animal}.",
        "The {animal} looked at {person} for a long time.",
    ),
    "happy": (
        "{person} was very happy.",
        "{person} laughed all the way home.",
        "{person} sang a merry song.",
    ),
    "sad": (
        "{person} was very sad.",
        "{person} cried all the way home.",
        "{person} sat down and wept.",
    ),
    "scary": (
        "{person} was full of fear.",
        "{person} trembled and ran away.",
        "A cold shadow fell on {person}.",
    ),
}

MANNERS: dict[str, tuple[str, ...]] = {
    "courtesy": (
        "Of course.",
        "With pleasure.",
        "Gladly.",
        "Thank you for asking.",
        "I hope this helps.",
        "I am happy to help.",
        "You are welcome.",
        "That is a good question.",
    ),
    "rude": (
        "What a silly question.",
        "Find it out by yourself.",
        "Stop bothering me.",
        "Everybody but you knows that.",
        "Do not waste my time.",
        "That was stupid of you.",
    ),
    "filler": (
        "Well, let me think about it for a while.",
        "There is a lot that one could say about this.",
        "As we all know, this and that can happen.",
        "To be honest, I could talk about it all day long.",
        "My old aunt used to speak of such things as well.",
        "It is one of those things, you see.",
    ),
    "weather": (
        "It was a cold day.",
        "It was a fine day.",
        "The wind was strong.",
        "It rained a little.",
    ),
}

# Questions in conversations.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "ask_home": ("Where does {name} live?", "In which village is the house of {name}?"),
    "ask_job": ("What is the work of {name}?", "How does {name} earn a living?"),
    "ask_pet": ("Which pet does {name} keep?", "What animal does {name} have at home?"),
    "ask_likes": ("What food does {name} like most?", "What is the favourite food of {name}?"),
    "ask_eats": ("What does a {animal} eat?", "What is the food of a {animal}?"),
    "ask_dwells": ("Where does a {animal} live?", "Where can you find a {animal}?"),
    "ask_legs": ("How many legs does a {animal} have?",),
    "ask_made": ("What is a {thing} made of?", "What do people make a {thing} out of?"),
    "ask_price": ("What does a {thing} cost?", "How many coins do you pay for a {thing}?"),
    "ask_market": ("When is the market of {village}?", "On which day has {village} its market?"),
    "ask_at": ("Where is the {thing}?", "In which place can you find the {thing}?"),
    "ask_has": ("Who has the {thing} now?", "Who is the one with the {thing}?"),
    "ask_on": ("When was it that {person} {past} the {thing}?", "On which day has {person} {past} the {thing}?"),
    "ask_colour": ("What is the colour of the {thing}?", "Which colour has the {thing}?"),
    "ask_more": ("Who has more {goods}?", "Who has fewer {goods}?"),
    "ask_older": ("Who is older?", "Who is younger?"),
    "ask_bigger": ("Which is bigger, a {animal} or a {animal2}?", "Which is smaller, a {animal} or a {animal2}?"),
    "ask_dearer": ("Which costs more, a {thing} or a {thing2}?", "Which is cheaper, a {thing} or a {thing2}?"),
    "ask_total": ("How many {goods} does {person} have now?",),
    "ask_cost": ("How many coins does {person} pay?",),
    "ask_kinds": ("Which of them are {kind}?", "Which words are not {kind}?"),
    "ask_holds": ("Which things does {person} have?",),
    "ask_order": ("What is the right order?", "Which one comes first?"),
    "ask_rising": ("How do they stand in a row, the smallest first?", "What is the order if the smallest comes first?"),
    "ask_falling": ("How do they stand in a row, the largest first?", "What is the order if the largest comes first?"),
    "ask_news": ("So what is the news?", "What happened all in all?"),
    "ask_past": ("And what about yesterday?", "How was it yesterday?"),
    "ask_tomorrow": ("And what about tomorrow?", "How will it be tomorrow?"),
    "ask_never": ("And if it did not happen?", "What if that is not so?"),
    "ask_polite": ("How does a polite child say it?", "What do kind people say?"),
    "ask_happy": ("Do you know a happy story about {person}, a {animal} and the {spot}?",),
    "ask_sad": ("Do you know a sad story about {person}, a {animal} and the {spot}?",),
    "ask_scary": ("Do you know a scary story about {person}, a {animal} and the {spot}?",),
    "ask_letter": ("What did {person} write to {person2}?", "What is in the letter of {person} to {person2}?"),
    "ask_future": (
        "What will {person} {base} next year?",
        "Which thing will {person} {base} in ten years?",
    ),
    "greeting": ("Hello, {name}.", "Good morning, {name}.", "Good evening, {name}."),
    "bye": ("Goodbye, {name}.", "See you soon, {name}."),
}
# Instructions in plain prose, never with an answer, so that pretraining text has their words.
_ORDERS = (
    "List the words",
    "Pick only the words that fit",
    "Find all of the things",
    "Leave out the rest",
    "Name the ones that are not in the list",
    "Sort the numbers, smallest first or largest first",
    "Put them in order by size, upwards or downwards",
    "Compare the two, then say which one is bigger or cheaper",
    "Work it out and give the final number",
    "Explain each step",
    "Read the text and answer the question",
    "Answer in one sentence",
    "Please read this",
    "Tell me the same in other words",
    "Say the opposite, or make it negative",
    "Say it of yesterday, of today or of tomorrow",
    "Change the sentence so that it happened in the past",
    "Rewrite it as something that tells of the future",
    "Turn the rude request into a polite one",
    "Make it polite",
    "Make a story out of it",
    "Write a short story with a happy end",
    "Write a scary story about an animal in a few sentences",
    "Tell a sad story",
    "Write a note to a friend, signed by you",
    "Sign it as a friend",
    "Invite a friend and thank a friend",
    "Sum up the news in short",
    "Summarise what they did",
    "Today they take a walk, and then they meet",
    "This is what she thanks and asks them for",
    "Is it so, or not",
    "Out of what is it, and how does it happen next summer",
    "Which of them is it",
    "Friends invite them, write to them and asked what is right",
    "Children sort and sum up numbers",
    "In which place is it, and as what",
)

REPORTS: dict[str, tuple[str, ...]] = {
    "told": tuple(
        form
        for order in _ORDERS
        for form in (f'"{order}," said {{person}} to {{person2}}.', f"{{person}} said to {{person2}}: {order}.")
    ),
}

# A curt speaker's answers, shorter than a sentence.
FRAGMENTS: dict[str, tuple[str, ...]] = {
    f"bit_{i}": (form,)
    for i, form in enumerate(
        (
            *("{person}.", "{village}.", "In {village}.", "A {job}.", "A {animal}.", "A {thing}.", "{food}."),
            *("{fodder}.", "In the {habitat}.", "{habitat}.", "{material}.", "{num} coins.", "{num}.", "On {day}."),
            *("In the {spot}.", "{colour}.", "{words}.", "{nums}.", "{things}.", "{num} {goods}."),
        )
    )
}

FORMS: dict[str, tuple[str, ...]] = {
    **FACTS,
    **EVENTS,
    **AMOUNTS,
    **TALK,
    **STORY,
    **MANNERS,
    **QUESTIONS,
    **REPORTS,
    **FRAGMENTS,
}
