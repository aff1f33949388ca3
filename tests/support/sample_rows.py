"""Writes the sample that `pipemill.sample()` names: reports from a small town that does not exist.

The texts are put together from sentences written for this file. Their lengths are log-normal, as
those of texts that people write: `python -m tests.support.sample_rows` writes the file again.
"""

from __future__ import annotations

import datetime
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE = Path(__file__).parent.parent.parent / "pipemill" / "sample.parquet"
ROWS = 200

AUTHORS = "Ada Brook,Ben Okafor,Clara Weiss,Dario Lund,Elif Aydin,Farid Nasser,Greta Holm".split(
    ","
)
PLACES = (
    "the old mill,the market square,the north bridge,the library,the ferry landing,"
    "the town hall,the railway station,the orchard,the swimming pool,the lighthouse"
).split(",")
# By topic: what is counted, what happened to it, and sentences that say more.
TOPICS = {
    "repairs": (
        ["roof tiles", "window frames", "street lamps", "water pipes"],
        ["were replaced", "were repaired", "were found broken"],
        [
            "The scaffolding at {place} comes down as soon as the paint has dried.",
            "A carpenter from the next valley brought seasoned oak for the beams.",
            "Rust had eaten through the brackets, so new ones were forged.",
            "The mortar needs two dry days, and the forecast promises only one.",
            "Nobody had touched that wiring for forty years.",
            "The estimate was {number} crowns, which is less than we had feared.",
        ],
    ),
    "transport": (
        ["tickets", "buses", "bicycles", "passengers"],
        ["were counted", "were turned away", "arrived late"],
        [
            "The first bus to {place} now leaves ten minutes earlier.",
            "Fog kept the ferry in harbour until noon.",
            "A new timetable hangs at every stop, in letters large enough to read.",
            "The driver waited for the school class, and most people thanked her for it.",
            "Rails bend a little in such heat, so the trains go slowly.",
            "On Sundays the night line runs once an hour.",
        ],
    ),
    "food": (
        ["loaves", "baskets of apples", "jars of honey", "bowls of soup"],
        ["were sold", "were given away", "were eaten"],
        [
            "The bakery near {place} smells of cardamom from five in the morning.",
            "This year's pears are small but very sweet.",
            "Somebody forgot the salt, and nobody complained.",
            "The recipe asks for butter, flour, patience and a hot oven.",
            "Children taste everything twice before they choose.",
            "We ran out of plates and ate from cabbage leaves.",
        ],
    ),
    "weather": (
        ["hailstones", "lightning strikes", "litres of rain", "fallen branches"],
        ["were measured", "were reported", "were counted"],
        [
            "Clouds came over the ridge so fast that the washing got wet.",
            "By evening the wind had turned, and the stars were out.",
            "The river rose to the second step below {place}.",
            "Frost is expected in the hollows, though not on the hill.",
            "After the thunder it smelled of iron and cut grass.",
            "The old thermometer has not shown such a number since it was hung there.",
        ],
    ),
    "music": (
        ["singers", "violins", "songs", "listeners"],
        ["were heard", "were invited", "were applauded"],
        [
            "The choir rehearses at {place} because of its echo.",
            "Halfway through the slow movement a string broke, and the cellist went on without it.",
            "The drummer counts aloud, but only in his sleep.",
            "An encore was demanded, refused, and then played after all.",
            "The piano is half a tone flat, so everybody else tuned down.",
            "Between two pieces one could hear the swallows.",
        ],
    ),
    "health": (
        ["patients", "vaccinations", "bandages", "appointments"],
        ["were recorded", "were booked", "were needed"],
        [
            "The doctor is at {place} every Tuesday and Thursday.",
            "Coughs are going round again, and warm tea helps a little.",
            "The nurse asks everyone to bring their old prescriptions.",
            "A sprained ankle was the worst of it.",
            "The waiting room has new chairs and a fish tank.",
            "Fever for more than three days is a reason to call.",
        ],
    ),
}
# For any topic.
ASIDES = [
    "More about it next week.",
    "Ask at {place} if you want to help.",
    "It took {number} minutes, questions included.",
    "Two neighbours see it differently, and both wrote to us.",
    "The photographs are in the window of the newspaper's office.",
    "It was, all in all, a good day.",
    "Why it happened is still being looked into: there are three explanations, none of them new.",
    "“We would do it again tomorrow,” said {author}.",
]


def make_rows() -> pa.Table:
    random.seed(20)
    return pa.Table.from_pylist([_make_row(number) for number in range(ROWS)], schema=SCHEMA)


SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "date": pa.date32(),
        "author": pa.string(),
        "topic": pa.string(),
        "text": pa.string(),
        "question": pa.string(),
        "answer": pa.string(),
    }
)


def _make_row(number: int) -> dict[str, object]:
    topic = random.choice(list(TOPICS))
    things, events, sentences = TOPICS[topic]
    thing, event = random.choice(things), random.choice(events)
    place, count = random.choice(PLACES), random.randint(3, 480)
    date = datetime.date(2024, 1, 1) + datetime.timedelta(days=random.randrange(730))
    day = f"{date.day} {date:%B}"
    length = min(int(random.lognormvariate(1.2, 1.05)), 90)
    text = [_fill(random.choice(sentences + ASIDES)) for _ in range(length)]
    fact = f"On {day}, {count} {thing} {event} at {place}."
    text.insert(random.randint(0, len(text)), fact)
    question, answer = random.choice(
        [
            (f"How many {thing} {event}?", str(count)),
            (f"When was it that {thing} {event}?", day),
            (f"Where was it that {thing} {event}?", place),
        ]
    )
    # Longer reports have paragraphs.
    paragraphs = [" ".join(text[start : start + 6]) for start in range(0, len(text), 6)]
    return {
        "id": number,
        "date": date,
        "author": random.choice(AUTHORS),
        "topic": topic,
        "text": "\n\n".join(paragraphs),
        "question": question,
        "answer": answer,
    }


def _fill(sentence: str) -> str:
    return sentence.format(
        place=random.choice(PLACES), number=random.randint(12, 950), author=random.choice(AUTHORS)
    )


if __name__ == "__main__":
    pq.write_table(make_rows(), FILE, compression="zstd")
