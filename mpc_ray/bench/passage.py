"""Plain prose to measure with: written for this purpose, about 700 tokens, and in no calibration sample."""

from __future__ import annotations

SENTENCES = (
    "The night train leaves the harbour a little after ten.",
    "Most of its passengers sleep before the first tunnel.",
    "A conductor walks through the carriages with a small lamp and checks the doors.",
    "Nobody remembers when the line was built, but the bridges carry the year 1907.",
    "In winter the snow on the pass can hold everything up for two days.",
    "Then the village at the summit opens its school and cooks soup for a hundred strangers.",
    "My grandmother met her husband during one of those delays.",
    "She was carrying a sewing machine that she had repaired herself.",
    "He asked whether he could help, and she said that he could hold the needle box.",
    "They kept the machine for fifty years, and it still works.",
    "The doctor explained that the results would take about a week.",
    "Please do not send the contract before both lawyers have read the last page.",
    "How long does it take to cancel a subscription that was paid for a whole year?",
    "The pharmacy is closed on Sundays, except for emergencies.",
    "We found three errors in the invoice, and two of them were in our favour.",
    "A good map shows what is there; a very good one shows what was left out.",
    "Rain fell on the tin roof so loudly that we stopped talking and just listened.",
    "The committee will publish its decision on the fourteenth of March.",
    "Bees return to the same field as long as the clover is in flower.",
    "Could you tell me which platform the train to the coast leaves from?",
    "He counted the money twice, closed the drawer and switched off the light.",
    "Salt slows the yeast down, so add it after the dough has rested.",
    "The library lends tools as well as books: drills, ladders and a cider press.",
    "If the password is lost, an administrator has to reset it in person.",
    "Her first novel sold four hundred copies, her second one four hundred thousand.",
    "The engine starts on cold mornings, but it complains.",
    "Every patient has the right to see the records that are kept about them.",
    "The bridge swings open at noon to let the sailing boats through.",
    "They argued about the price of the house and agreed about the garden.",
    "Nothing in the kitchen was newer than the radio, and the radio was old.",
    "Which of these two plans covers dental treatment abroad?",
    "The children built a dam of stones and leaves across the stream.",
    "An apple a day is cheaper than most advice.",
    "The orchestra tuned for so long that the audience began to applaud.",
    "Two of the witnesses remembered a red car, the third a blue one.",
    "Our flight was moved to the evening, so we have the afternoon for the museum.",
    "Wool shrinks in hot water because its scales hook into each other.",
    "She signed the lease without reading it, which she regretted in November.",
    "The lighthouse has been automatic since 1984; the keeper's dog stayed on.",
    "When the tide is out you can walk to the island and back in an hour.",
    "He wrote the address on the back of his hand and still got lost.",
    "The new medicine helps about one patient in three.",
)


def passage(start: int = 0) -> str:
    """All sentences, three times over, beginning with number ``start``: more than 512 tokens in any vocabulary."""
    first = start % len(SENTENCES)
    return " ".join((SENTENCES[first:] + SENTENCES[:first]) * 3)
