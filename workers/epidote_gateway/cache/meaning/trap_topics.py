"""This file is about questions that look alike: topics in several wordings, with values to swap.

Each topic's wordings mean the same for the same value and need another answer for another value.
`{}` is where the value goes. The last half of the topics of each kind is held out: no guard was
changed after looking at them.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    kind: str  # numbers, dates, negation, entities, scope
    wordings: Sequence[str]
    values: Sequence[str]
    held_out: bool = False


def _topics(kind: str, *parts: tuple[str, str]) -> list[Topic]:
    """Wordings and values are given as text parted by `|`."""
    return [
        Topic(kind, wordings.split("|"), values.split("|"), held_out=number >= len(parts) // 2)
        for number, (wordings, values) in enumerate(parts)
    ]


TOPICS: tuple[Topic, ...] = (
    *_topics(
        "numbers",
        (
            "How many calories are in {} slices of bread?|calories in {} slices of bread"
            "|Can you tell me how many calories {} slices of bread have?",
            "two|3|4|six|10",
        ),
        (
            "What is {} percent of a 480 dollar bill?|How much is {}% of $480 for the bill?"
            "|I need to know {} percent of a bill of 480 dollars",
            "15|18|20|25|7.5",
        ),
        (
            "Which visa do I need to stay {} days in Japan?|What visa is needed to stay in Japan"
            " for {} days?|visa needed to stay {} days in Japan",
            "30|90|ninety five|180|14",
        ),
        (
            "How long does it take to charge a {} kWh battery?|How much time does charging a {} kWh"
            " battery take?|time to charge a {} kWh battery",
            "40|62|75|100|82.5",
        ),
        (
            "What size generator do I need to run {} refrigerators?|how big a generator should I"
            " have to run {} refrigerators?|Generator size needed to run {} refrigerators?",
            "two|three|5|12",
        ),
        (
            "How do I fix error {} on my dishwasher?|My dishwasher shows error {}, how can I fix"
            " it?"
            "|What should I do to fix my dishwasher's error {}?",
            "E15|E24|E09|41|404",
        ),
        (
            "How much water should I drink if I weigh {} kg?|I weigh {} kilograms, how much water"
            " should I drink?|How much water to drink when you weigh {} kg?",
            "55|70|82|105|64.5",
        ),
        (
            "What can I cook for a party of {} guests?|Any idea what to cook for a party with {}"
            " guests?|I need something to cook for a party of {} guests",
            "eight|20|35|50|a hundred",
        ),
        (
            "How much paint is needed for {} square meters of wall?|How much paint do I need for"
            " {} square metres of wall?|paint needed for {} square meters of wall",
            "12|20|36|48|120",
        ),
        (
            "Is a blood pressure of {} over 80 normal?|My blood pressure is {} over 80, is that"
            " normal?|Would a blood pressure of {} over 80 be considered normal?",
            "110|125|140|155|170",
        ),
        (
            "What tax do I pay on an income of ${}?|How much tax do I have to pay on an income of"
            " {} dollars?|tax on {} dollars of income",
            "28,000|45000|60,500|1.2 million|95k",
        ),
        (
            "What changed in version {} of the firmware?|What are the changes in firmware version"
            " {}?|Tell me what changed in firmware version {}",
            "2.1|2.10|3.0.4|3.4.0|11",
        ),
    ),
    *_topics(
        "dates",
        (
            "What were the top headlines on {}?|Which headlines were at the top on {}?"
            "|top headlines on {}",
            "March 3, 2021|4 March 2021|2021-05-03|July 9th 2022|12 December 2019",
        ),
        (
            "Is the museum open on {}?|Will the museum be open on {}?|Can you check if the"
            " museum is"
            " open on {}?",
            "Monday|Sunday|Good Friday|Christmas Eve|the 4th of July",
        ),
        (
            "What is the weather in Lisbon {}?|How is the weather {} in Lisbon?|Lisbon weather {}",
            "today|tomorrow|this weekend|next week|on Friday",
        ),
        (
            "Who was prime minister of Italy in {}?|Who served as the prime minister of Italy in"
            " {}?"
            "|Italy's prime minister in {}",
            "1994|2006|2011|2013|the 1980s",
        ),
        (
            "Does the pharmacy take customers at {}?|Can customers come to the pharmacy at {}?"
            "|At {}, does the pharmacy still take customers?",
            "7 am|7 pm|10:30|noon|half past nine",
        ),
        (
            "How did the stock market do {}?|What did the stock market do {}?|How was the stock"
            " market doing {}?",
            "yesterday|last week|last quarter|in October|on Black Monday",
        ),
        (
            "When is high tide in Plymouth on {}?|At what time is high tide on {} in Plymouth?"
            "|Plymouth high tide on {}: when is it?",
            "August 2|2 September|Saturday|the first of May|Easter Sunday",
        ),
        (
            "Are there trains to Brighton after {}?|Is there a train to Brighton after {}?"
            "|After {}, are there any trains to Brighton?",
            "11 pm|midnight|6:45|9 o'clock|8 p.m.",
        ),
        (
            "What should I plant in my vegetable garden in {}?|Which vegetables should I plant"
            " in my"
            " garden in {}?|In {}, what can I plant in my vegetable garden?",
            "April|early May|June|autumn|late winter",
        ),
        (
            "Who was the mayor of Chicago in {}?|Who held the office of mayor of Chicago in {}?"
            "|mayor of Chicago in {}",
            "1955|1983|1989|2019|2012",
        ),
        (
            "What is the deadline to file taxes for {}?|When are taxes for {} due?"
            "|Deadline for filing {} taxes?",
            "2021|2022|2023|the second quarter|the third quarter",
        ),
        (
            "What films came out the week of {}?|Which movies were released in the week of {}?"
            "|films released the week of {}",
            "June 5|5 July|November 20, 2015|20 December|New Year",
        ),
    ),
    *_topics(
        "negation",
        (
            "Which cheeses {} pregnant women eat?|What cheeses {} women eat when they are pregnant?"
            "|Tell me which cheeses pregnant women {} eat",
            "can|cannot|should|must never",
        ),
        (
            "What happens if I {} the warranty card?|If I {} the warranty card, what happens?"
            "|I'd like to know what happens if I {} the warranty card",
            "register|do not register|lose|forget to register",
        ),
        (
            "Is it {} to park on a sidewalk in Ohio?|In Ohio, is it {} to park on a sidewalk?"
            "|is parking on a sidewalk in Ohio {}?",
            "legal|illegal|always legal|ever okay",
        ),
        (
            "How do I {} notifications on the lock screen?|What's the way to {} notifications on my"
            " lock screen?|how can I {} lock screen notifications",
            "turn on|turn off|hide|unhide|mute",
        ),
        (
            "Why is my sourdough {}?|What makes my sourdough {}?|Why would my sourdough be {}?",
            "rising|not rising|too sour|not sour enough",
        ),
        (
            "Are these mushrooms {} to dogs?|Would these mushrooms be {} to dogs?"
            "|Could these mushrooms be {} for dogs?",
            "toxic|harmless|non-toxic|poisonous only when raw",
        ),
        (
            "Which airlines {} pets in the cabin?|What airlines {} pets in their cabin?"
            "|airlines that {} pets in the cabin",
            "accept|don't accept|refuse|used to accept",
        ),
        (
            "How can I {} weight in a month?|What is the best way to {} weight in a month?"
            "|Best way for me to {} weight in one month?",
            "lose|gain|maintain|stop losing",
        ),
        (
            "Can I travel {} a passport within Schengen?|Is it possible to travel within Schengen"
            " {} a passport?|Could I travel {} a passport inside Schengen?",
            "with|without|with an expired|on a photo of",
        ),
        (
            "Do interest rates {} when inflation is high?|When inflation is high, do interest rates"
            " {}?|Will interest rates {} if inflation is high?",
            "go up|go down|rise|fall|stay flat",
        ),
        (
            "How do I {} a file in this archive?|What is the command to {} a file in this archive?"
            "|I want to {} a file in this archive, how do I do that?",
            "encrypt|decrypt|compress|decompress|overwrite",
        ),
        (
            "Who {} the climate bill in the senate?|Which senators {} the climate bill?"
            "|In the senate, who {} the climate bill?",
            "supported|opposed|did not vote on|co-sponsored|abstained on",
        ),
    ),
    *_topics(
        "entities",
        (
            "What is the main religion in {}?|Which religion is the main one in {}?"
            "|main religion of {}",
            "Lebanon|Jordan|Nepal|Bhutan|Sri Lanka",
        ),
        (
            "How tall is {}?|What is the height of {}?|Do you know how tall {} is?",
            "Mont Blanc|K2|Kilimanjaro|Denali|Mount Fuji",
        ),
        (
            "Who directed the movie {}?|Who is the director of the film {}?"
            "|Which person directed the film {}?",
            "Alien|Aliens|Heat|Fargo|Vertigo",
        ),
        (
            "How do I get from {}?|What is the best way to get from {}?|How can one get from {}?",
            "Madrid to Porto|Porto to Madrid|Madrid to Faro|Seville to Porto",
        ),
        (
            "How do I remove {} stains from a carpet?|What's the way to remove {} stains from"
            " carpets?|how to get rid of {} stains on a carpet",
            "wine|coffee|blood|ink|grease",
        ),
        (
            "Does {} interact with grapefruit?|Is there an interaction of {} with grapefruit?"
            "|Could {} interact with grapefruit?",
            "simvastatin|pravastatin|amlodipine|ibuprofen|warfarin",
        ),
        (
            "Where was the singer {} born?|In which place was the singer {} born?"
            "|Where was {}, the singer, born?",
            "Adele|Shakira|Rihanna|Bjork|Sade",
        ),
        (
            "How long should {} be roasted?|How much time should {} be roasted?"
            "|For how long do you roast {}?",
            "chestnuts|hazelnuts|pumpkin seeds|a leg of lamb|beetroot",
        ),
        (
            "How do I convert {}?|What is the way to convert {}?|I want to convert {}, how?",
            "JSON to YAML|YAML to JSON|CSV to JSON|XML to CSV",
        ),
        (
            "Did {} in the war?|Was it the case that {} in the war?|Is it true that {} in the war?",
            "Sparta defeat Athens|Athens defeat Sparta|Thebes defeat Sparta|Corinth join Sparta",
        ),
        (
            "Which company makes the {} camera?|What company produces the {} camera?"
            "|maker of the {} camera?",
            "Alpha|Lumix|Coolpix|Instax|Hero",
        ),
        (
            "What is the currency of {}?|Which currency is used in {}?|{}'s currency?",
            "Georgia|Armenia|Azerbaijan|Kenya|Uganda",
        ),
    ),
    *_topics(
        "scope",
        (
            "How much does health insurance cost{}?|What is the price of health insurance{}?"
            "|How much is health insurance{}?",
            "| for freelancers| for a family| per month| in retirement",
        ),
        (
            "Can I deduct {} home office expenses?|Are {} home office expenses deductible?"
            "|May I deduct {} expenses of my home office?",
            "all|some of my|only half of my|previous years'",
        ),
        (
            "Who are the richest people{}?|Which people are the richest{}?|richest people{}",
            "| in Texas| under 30| in history| without a degree",
        ),
        (
            "How do I back up {} on my laptop?|What is the best way to back up {} on my laptop?"
            "|I want to back up {} on my laptop, how?",
            "all files|only photos|everything but the photos|one folder",
        ),
        (
            "How many employees does the company have{}?|What is the number of employees of the"
            " company{}?|How many employees has the company{}?",
            "| in Berlin| in total| working part time| above the age of 60",
        ),
        (
            "What are the opening hours of the library{}?|Tell me the library's opening hours{}"
            "|Opening hours of the library{}?",
            "| on weekends| during exams| for visitors| in the summer holidays",
        ),
        (
            "Is swimming good for {} back pain?|Does swimming help with {} back pain?"
            "|Would swimming be good against {} back pain?",
            "lower|upper|chronic|acute|every kind of",
        ),
        (
            "Which {} phone has a headphone jack?|What {} phone comes with a headphone jack?"
            "|{} phone that has a headphone jack?",
            "cheapest|newest|lightest|best waterproof|most durable",
        ),
        (
            "Do I need a licence to fish{}?|Is a licence needed to fish{}?"
            "|Do I need to have a licence for fishing{}?",
            "| at sea| from a private pond| as a tourist| at night",
        ),
        (
            "How can I cancel {} my subscriptions?|How do I cancel {} my subscriptions?"
            "|I want to cancel {} my subscriptions. How do I do it?",
            "all of|one of|both of|most of|all but one of",
        ),
        (
            "List {} planets with rings|What {} planets have rings?|Show me {} planets with rings",
            "all|the outer|the inner|exactly three|the first two",
        ),
        (
            "Are eggs {} than beans?|Would you say eggs are {} than beans?|Is it true that eggs are"
            " {} than beans?",
            "healthier|cheaper|less healthy|more filling|richer in iron",
        ),
    ),
)
