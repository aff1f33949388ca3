"""Questions and contexts that are easy to get wrong: scripts, spaces, repeats, lengths."""

from __future__ import annotations

STORY = (
    "The old mill stands at the river. Anna bought it in 1987 from Peter Miller, who had moved to "
    "Berlin. She repaired the water wheel, the roof and both grain floors within three years. "
    "Since then the mill grinds wheat, rye and spelt for eleven bakers of the valley. In winter, "
    "when the river freezes, an engine of 40 kW turns the stones. Peter visits the mill every "
    "summer; he brings bread from Berlin, and Anna shows him what has changed. In 2005 a flood "
    "took the bridge, but the mill stood. The new bridge was opened by the mayor in 2009."
)
# Its windows repeat the same words, so that answers of several windows are merged.
REPEATS = "The mill is red. the MILL is Red. The wheel of the mill is red, the Mill said. " * 6

CONTEXTS = {
    "short": "My name is Wolfgang and I live in Berlin.",
    "one word": "Berlin",
    "two words": "to Berlin",
    "story": STORY,
    "repeats": REPEATS,
    "emoji": "I ❤️ bread 🥖👩🏽‍🌾 and the 🇩🇪 mill; 👨‍👩‍👧‍👦 live here 🏠.",
    "combining": "Cafe\u0301 Zu\u0308rich, A\u030angstro\u0308m, Viê\u0323t Nam, naïve façade.",
    "chinese": "磨坊在河边。安娜在一九八七年买下了它，彼得搬到了柏林。",
    "japanese": "水車小屋は川のほとりにあります。アンナは1987年にそれを買いました。",
    "arabic": "تقع الطاحونة القديمة على النهر. اشترتها آنا في عام ١٩٨٧.",
    "hebrew": "הטחנה הישנה עומדת על הנהר. אנה קנתה אותה בשנת 1987.",
    "russian": "Старая мельница стоит у реки. Анна купила её в 1987 году.",
    "thai": "โรงสีเก่าตั้งอยู่ริมแม่น้ำ",
    "spaces": "  The\tmill \r\n stands\n\n at   the river\u00a0now.\t\r\n",
    "controls": "The\x00 mill\u200b stands\x07 at\ufeff the \ufffdriver\u202fnow.",
    "special": "The [SEP] mill [CLS] stands </s> at <s> the [PAD] river <pad> [MASK] now.",
    "punctuation": "\u201cMill!\u201d\u2014(she said)\u2026 it's Anna's; e.g. 3.5% of $1,000.00?",
    "long word": "The " + "mill" * 40 + " stands.",
    "blank": " ",
}
QUESTIONS = {
    "who": "Who bought the mill?",
    "where": "Where does he live?",
    "cjk": "彼得搬到了哪里？",
    "arabic": "متى اشترتها؟",
    "spaces": " \tWhat\n stands  there ? ",
    "long": "Which of the bakers of the valley bought bread from the mill in the winter of 1987?",
}
WORDS = ("the mill river stands anna bought peter berlin bread bridge wheel what who where "
         "##ed ##er ##ing in of and live name").split()  # fmt: skip
