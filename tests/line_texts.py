"""Texts of several lines: real-looking ones with what is expected of them, and random ones."""

import random

# A line whose end ends a sentence is marked with ¶; the others go on in the next line.
MARKED = {
    "two names": "Ben¶\nOmar Haddad",
    "two names, the longer first": "Omar Haddad¶\nBen",
    "names of about one length": "Ben Ortiz¶\nAda Byron¶\nOmar Haddad¶\nJoe Smith¶\nLi Wei",
    "greeting, hard-wrapped prose and signature": """Dear Ms Haddad,¶
¶
thank you for your letter of 5 May. We have passed it on to Angela
Merkel and the people at the Technical University of Munich, who will
write to you before the end of the month. The contract with the United
States Postal Service, which you mention, has ended.¶
¶
Best regards,¶
Ben Ortiz¶
Acme Corp¶
12 Main Street¶
Springfield""",
    "the same without blank lines": """Hi Ben,¶
the report of the Technical University was sent yesterday to Angela
Merkel and her office in Berlin, and we expect an answer by Monday or
Tuesday at the latest.¶
Thanks,¶
Ada Byron""",
    "greeting of two people": "Dear Ms Haddad and Mr Ortiz,¶\nBen is in Rome.",
    "two lines of prose": """Thanks for sending the report to Anna Schmidt and the rest of the
National Theatre.""",
    "news, narrow columns": """The president of the United
States met the chancellor in
Berlin on Monday to talk about
the war, officials said.""",
    "news that begins with names": """Chancellor Angela Merkel and President Emmanuel Macron met European
Commission President Ursula von der Leyen yesterday in the old town of
Strasbourg.""",
    "sentences that end with a line": """The talks took place in Geneva and ended without any result at all.¶
Nobody from the Foreign Office wanted to comment when asked by Mr.
Smith of Reuters, who had waited for hours outside, in the rain.""",
    "hyphens and commas at full lines": """He called the plan of the Euro-
pean Commission, the Council,
and the others a well-
known trap, and left it at that.""",
    "headline above prose": """Quarterly results of Acme¶
Berlin, 5 May - The company from the north of Germany has earned more
than in the year before, as its chief Ada Byron said.""",
    "title-case headline longer than what follows": """European Commission Proposes New Rules On Digital Markets Act¶
Brussels, 5 May""",
    "address with a long line": """Department of Computer Science, University of Manchester¶
Oxford Road¶
Manchester M13 9PL¶
United Kingdom""",
    "address of lines of one length": "Calle Mayor de las Flores 12¶\n28001 Madrid¶\nEspaña",
    "envelope": "Ms Ada Byron¶\nc/o Acme Ltd.¶\n7 Rue de la Paix¶\n75002 Paris",
    "bullets": """We need:¶
- milk from the farm of Ben Ortiz in the valley behind the mountain
  Snowdon, and bread¶
- a letter from Omar¶
* Haddad's key¶
• water""",
    "points": """1. Ben Ortiz writes the letter to the ministry in Madrid before noon¶
2. Omar Haddad reads it¶
3) Ada¶
(4) Cleo¶
b) Rome¶
[5] Oslo""",
    "full line before a point": """Whoever comes late has to talk to Ben Ortiz of the Acme Corporation¶
1. Omar Haddad comes early and stays for as long as he likes it here""",
    "markdown": "# Ben Ortiz¶\n## Omar¶\nAda Byron went to Rome¶\n---¶\nCleo Jones¶\n***¶\nEnd",
    "rule as wide as the text": """The report was written by Ada Byron and Cleo Jones for the office of¶
--------------------------------------------------------------------¶
Ben Ortiz""",
    "mail header": """From: Ben Ortiz¶
To: Omar Haddad¶
Subject: the offer of Acme Corp for the new building in the centre of¶
Date: 5 May""",
    "quoted mail": """On Monday Ada Byron wrote:¶
> the letter of the Technical University was sent yesterday to Angela
> Merkel and her office in Berlin, and we expect an answer.¶
>¶
> Ada¶
Thanks¶
>> older words of Ben¶
> Omar""",
    "quoted mail, depth changes at full lines": """>> the letter of the Technical University was sent to Angela¶
> Merkel and her office in Berlin have not answered us so far¶
Omar is in Rome now and has not heard of it from the office""",
    "table of tabs": "Name\tCity¶\nBen Ortiz\tMadrid¶\nAda Byron\tLondon",
    "table of blanks": """name of the client       city           sum¶
the bank of Ben Ortiz    Madrid       1,200¶
Ada Byron and partners   London       3,400""",
    "table of bars": "| Ben Ortiz and his friends | Madrid |¶\n| Ada Byron and her friends | London |",
    "comma-separated values": "name,city,sum¶\nBen Ortiz,Madrid,1200¶\nAda Byron,London,3400",
    "poem": """Shall I compare thee to a summer's day?¶
Thou art more lovely and more temperate:¶
Rough winds do shake the darling buds of May,¶
And summer's lease hath all too short a date:¶
Sometime too hot the eye of heaven shines,¶
And often is his gold complexion dimmed""",
    "poem of short lines": "Roses grow in Rome¶\nViolets in Oslo¶\nSugar in Lima",
    "ticket": """Customer: Omar Haddad¶
Reported by Ben Ortiz¶
Status open¶
Printer in Rome is broken¶
Assigned to Ada""",
    "sentence-case notes of one length": """Order placed with Acme Corp¶
Refund requested by Ben Jo¶
Delivery moved to Oslo now""",
    "each paragraph is a line": "A " + "word " * 40 + "of Ada Byron¶\nBen Ortiz " + "went on " * 8 + "in Rome",
    "web address longer than the lines": """You can read everything that was said about it by Angela Merkel at
https://www.example.org/a/very/long/address/that/does/not/fit/into/the/line/at/all/ever
or ask the people of the Technical University of Munich and the United
States embassy.""",
    "indented prose": """    The letter of the university was sent to the office of Angela
Merkel, who is in Berlin, and we expect an answer some time this week,
or the next.""",
    "German": """Der Vorstand der Deutschen Bank, Christian Sewing, traf sich gestern am
Montag mit dem Minister und der Chefin der Europäischen Zentralbank in
Frankfurt.""",
    "Arabic, which knows no case": """قال الرئيس في المؤتمر الصحفي الذي عقد أمس في القاهرة إن الحكومة ستعمل
على تنفيذ المشروع في أقرب وقت ممكن""",
    "Windows line ends": "Ben¶\r\nOmar Haddad¶\r\n¶\r\nthe letter was sent to all people in the town of the United\r\n"
    "States, and nobody has answered it.",
    "old Macintosh line ends": "Ben¶\rOmar Haddad¶\r¶\r1. Ada¶\r2. Cleo",
    "vertical tab": "Ben¶\vOmar Haddad",
    "form feed": "the letter was sent to all the people in the old town of the United¶\fStates of the world, and"
    " nobody has answered it.",
    "line separator": "Ben¶\u2028Omar Haddad",
    "paragraph separator": "the letter was sent to all the people in the town of the United¶\u2029States and nobody.",
    "next line": "Ben¶\u0085Omar Haddad",
    "blanks around the line end": "Ben  ¶\n   Omar Haddad\t¶\n \u200b ¶\nAda",
    "blank line in prose": "the letter was sent to all of the people of the old town of the United¶\n¶\nStates",
    "half a line in lower case": "A paragraph that goes\non in the next line.",
    "nothing but line ends": "\n\n",
    "one line": "Ben Ortiz met Omar Haddad",
}  # fmt: skip

PARTS = (
    "Ada Byron|went to|the|Rome|of the old town of|12|1.|(3)|b)|Subject:|-|--|•|well-|Müller|ǅ|東京|קול|, and|.|Mr.|!|"
    "https://example.org/a/very/long/address/of/a/page/somewhere|>|> |>> |\t|   |||#|\u200b|'|\u0301|x"
).replace("|||", "|\0|").split("|")  # fmt: skip
PARTS = [part.replace("\0", "|") for part in PARTS]
ENDS = ("\n", "\n", "\n", "\n", "\r\n", "\n\n", "\n>\n", "\r", "\v", "\f", "\u2028", "\u2029", "\x85", "\n\r", "\r\r\n")


def wrapped(rng: random.Random) -> str:
    """Lines of about one length, as prose and tables have them, and others among them."""
    width, lines = rng.choice([15, 20, 25, 54, 56, 70, 131, 134]), []
    for _ in range(rng.randrange(1, 9)):
        line, longest = rng.choice(["", "", "", "> ", " ", "- "]), rng.choice([width, width, width - 3, 12])
        while len(line) < longest - 12:
            line += rng.choice(PARTS) + rng.choice([" ", " ", " ", ""])
        lines += [line + "x" * rng.randrange(9), rng.choice(ENDS)]
    return "".join(lines)
