"""Texts that cut badly: every rule of raw-text splitting beside every other, in random order."""

import random

BITS = (
    "a A z é É e\u0301 \u0301 東 〇 ² ½ ٣ 7 12 . .. , ' ’ - ‐ _ & @ # $ US$ NZ$ / http:// https:// www. com .co.uk Mr. "
    "Inc. No. Jan n't 's 've 'LL 'ſ ? ! … + = * ~ \" “ ” ( ) < > : % ǅ ª ʰ ℹ ㊗ ﾞ 🙂 👍 🏽 🇩 שלום हि ำ 𝐀 Ⅷ ـ · K "
    "İ 。 -- The he U.N. Ann London Rome Ada Smith City xn--"
).split(" ")
BLANKS = (" ", " ", " ", "  ", "\n", "\r\n", "\t", "\n\n", "\n1. ", ". ", ".) ", "! ", "Mr. ", "A. ", "... ")
INVISIBLE = (
    "\u200d",
    "\u200c",
    "\u00ad",
    "\ufe0f",
    "\U000e0041",
    "\u200f",
    "\x00",
    "\x85",
    "\u2028",
    "\u2029",
    "\ufeff",
)
EXAMPLES = (
    "",
    "   ",
    "\x00",
    "👩‍👩‍👧 Ada met 🎉 Bob in Rome 🇫🇷🇩🇪👍🏽 .",
    "the A\u0301da and Ada\u0308 met Bo\u0302b in Ro\u0308me.\r\nThe old city.\r\n\r\n1. He left",
    "Ada \u200fפגשה את\u200f Bob in \u0631\u0648\u0645\u0627 Rome .",
    "\x01Ada\x7f met\u200b Bob\u2028in\u2029Rome \x0b. \ufeffEnd\uffff",
    "王小明在北京 met Ada 。明日",
    'He couldn\'t\'ve said: "We won." "Why?" (So it was.) See http://a.b/c?d=e,f). Or ann.b@x.co.uk, foo.com!',
    "x" * 300 + " . " + "Rome " * 40,
    "Ada 🎉 (Rome) Smith [City ann@x.co.uk @ann 12 May, $ 40\nC:\\Ada\\x.pdf Bob Smith Inc.",
    "> Ada met Bob and saw the old\n> house in Rome\n- Oslo\n\tLima | City\nThe\u2028old house",
)


def random_text(rng: random.Random, *, longest: int = 25) -> str:
    def piece() -> str:
        draw = rng.random()
        if draw < 0.08:
            code = rng.choice([rng.randrange(32, 127), rng.randrange(32, 0x3000), rng.randrange(0x110000)])
            return "" if 0xD800 <= code < 0xE000 else chr(code)
        return rng.choice(BITS if draw < 0.65 else BLANKS if draw < 0.92 else INVISIBLE)

    return "".join(piece() for _ in range(rng.randrange(longest)))


def random_texts(count: int, *, seed: int, longest: int = 25) -> list[str]:
    rng = random.Random(seed)
    return [*EXAMPLES, *(random_text(rng, longest=longest) for _ in range(count))]
