"""Text made comparable, and the words whose meaning is in their form: numbers, dates, times, quantities, addresses.

`normalize` folds width, case and white space and keeps the way back to the source. `scan` finds data words in English
and Chinese and gives each a type and one way to write it: 25 for twenty-five, 二十五 and 25.0; 17:30 for half past five
pm and 下午五点半; --03-03 (ISO 8601 without a year) for March 3rd; "25 mm" for 二十五毫米.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from tokenlab.text.tokenization import graphemes

TEXT = "text"
TYPES = (TEXT, "url", "file", "position", "date", "time", "length", "duration", "percent", "size", "angle", "number")

# --- reading characters ------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def spaced(character: str) -> bool:
    """Whether words of this character's script stand between spaces (not Chinese, Japanese, Thai, Lao)."""
    if not (character.isalnum() or character == "_"):
        return False
    return not (
        "\u0e00" <= character <= "\u0eff"
        or "\u2e80" <= character <= "\u30ff"
        or "\u3400" <= character <= "\u9fff"
        or "\uf900" <= character <= "\ufaff"
        or character >= "\U00020000"
    )


class Normal(NamedTuple):
    """A text in NFKC, case folded, runs of white space as one space, and the way back to the source.

    Character k comes from source[begin[k]:end[k]]. edge[k], k = 0..n: a word may begin or end before character k,
    which is not so inside a grapheme, and not between two letters of a script with spaces ("art" in "start")."""

    source: str
    text: str
    begin: list[int]
    end: list[int]
    edge: list[bool]


def normalize(source: str) -> Normal:
    """Width, case and white space made one; the text itself is never replaced, only read (offsets stay)."""
    out: list[str] = []
    begin: list[int] = []
    end: list[int] = []
    whole: list[bool] = []  # the character begins a grapheme
    place = 0
    for cluster in graphemes(source):
        here, place = place, place + len(cluster)
        normal = unicodedata.normalize("NFKC", cluster).casefold() if not cluster.isascii() else cluster.lower()
        if normal.isspace():
            if out and out[-1] == " ":
                end[-1] = place
                continue
            normal = " "
        for k, character in enumerate(normal):
            out.append(character)
            begin.append(here)
            end.append(place)
            whole.append(k == 0)
    letters = [spaced(character) for character in out]
    inner = [w and not (a and b) for w, a, b in zip(whole[1:], letters, letters[1:], strict=False)]
    return Normal(source, "".join(out), begin, end, [True, *inner, True] if out else [True])


# --- data words: numbers, dates, units ... ---------------------------------------------------------------

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9}
_WORTH = {word: k for k, word in enumerate(ONES)} | {word: 10 * k for k, word in enumerate(TENS, 2)}
_HAN = {c: k for k, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
_HAN_SCALES = {"万": 10**4, "亿": 10**8}

_WORD = "|".join([*sorted(_WORTH, key=len, reverse=True), "hundred", *_SCALES, "point"])
_ENGLISH = rf"(?:an? (?=hundred|thousand|million))?(?:{_WORD})(?:(?:-| and | )(?:{_WORD})\b){{0,15}}"
_CHINESE = "[零〇一二两三四五六七八九十百千万亿]{1,16}(?:点[零〇一二三四五六七八九]{1,9}(?![十百千万亿]))?"
_DIGITS = r"(?:(?<!\w)-)?(?:\d{1,3}(?:,\d{3}){1,4}(?!\d)|\d{1,15})(?:\.\d{1,9})?(?:[百万亿]|千(?![米克]))?"
_NUMBER = rf"(?:{_DIGITS}|{_ENGLISH}|{_CHINESE})"
_NUMERAL = re.compile(_NUMBER)


def english_number(words: Sequence[str]) -> tuple[Decimal | None, int]:
    """(value, words used) of the longest well-formed number at the beginning: "two hundred and five" is 205, 4.

    "twenty twenty" is two numbers: its first one, 20, uses one word."""
    total, group, ceiling, last = 0, 0, 10**12, ""
    best: tuple[Decimal | None, int] = (None, 0)
    for k, word in enumerate(words):
        if word in ("a", "an") and k == 0:
            group, last = 1, "one"
            continue
        if word == "and" and last in ("hundred", "scale"):
            continue
        if word in TENS and last in ("", "hundred", "scale"):
            group, last = group + _WORTH[word], "ten"
        elif word in ONES and (last in ("", "hundred", "scale") or last == "ten" and 1 <= _WORTH[word] <= 9):
            group, last = group + _WORTH[word], "one"
        elif word == "hundred" and last in ("one", "ten") and 0 < group < 100:
            group, last = group * 100, "hundred"
        elif word in _SCALES and last != "scale" and group and _SCALES[word] < ceiling:
            ceiling = _SCALES[word]
            total, group, last = total + group * ceiling, 0, "scale"
        elif word == "point" and last:
            digits = ""
            while k + 1 < len(words) and words[k + 1] in ONES[:10]:
                k += 1
                digits += str(_WORTH[words[k]])
            return (Decimal(f"{total + group}.{digits}"), k + 1) if digits else best
        else:
            break
        best = Decimal(total + group), k + 1
    return best


_SECTION = re.compile(
    "(?:([一二两三四五六七八九])千)?零?(?:([一二两三四五六七八九])百)?零?(?:([一二两三四五六七八九])?十)?零?([一二两三四五六七八九])?"
)


def chinese_number(text: str) -> Decimal | None:
    """三百零五 is 305, 二〇二四 is 2024, 一百五 is 150, 三点五 is 3.5; None where the numeral is malformed."""
    whole, point, fraction = text.partition("点")
    if point:
        value = chinese_number(whole)
        return None if value is None else Decimal(f"{value}.{''.join(str(_HAN[c]) for c in fraction)}")
    if whole and all(c in _HAN for c in whole):
        return Decimal("".join(str(_HAN[c]) for c in whole))
    for name, worth in reversed(_HAN_SCALES.items()):
        if name in whole:
            high, _, low = whole.partition(name)
            many = chinese_number(high)
            if many is None or many >= 10_000:
                return None
            rest = Decimal(0) if not low else chinese_number(low)
            if rest is None or rest >= worth:
                return None
            # 三万五 is 35,000: a single last digit stands one place below the unit, unless a zero is spoken.
            return many * worth + rest * (worth // 10 if len(low) == 1 else 1)
    match = _SECTION.fullmatch(whole)
    if not match or not whole:
        return None
    thousands, hundreds, tens, ones = (_HAN[c] if c else 0 for c in match.groups())
    if "十" in whole and not tens:
        tens = 1
    if ones and whole[-2] in "千百":
        ones *= 100 if whole[-2] == "千" else 10
    return Decimal(thousands * 1000 + hundreds * 100 + tens * 10 + ones)


def number(text: str) -> Decimal | None:
    """The value of a whole numeral in digits, English or Chinese words; None: malformed."""
    if text[-1] in "百千万亿" and (text[0].isdigit() or text[0] == "-"):
        return Decimal(text[:-1].replace(",", "")) * (_HAN_UNITS | _HAN_SCALES)[text[-1]]
    if text[0].isdigit() or text[0] == "-":
        return Decimal(text.replace(",", ""))
    if text[0].isascii():
        words = re.split("[ -]", text)
        value, used = english_number(words)
        return value if used == len(words) else None
    return chinese_number(text)


def plain(value: Decimal) -> str:
    """25, 3.5, -0.25: no exponent, no zeros at the end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


UNITS = {  # type -> symbol -> names
    "length": {
        "mm": "mm millimetres millimeters millimetre millimeter 毫米",
        "cm": "cm centimetres centimeters centimetre centimeter 厘米 公分",
        "km": "km kilometres kilometers kilometre kilometer 公里 千米",
        "m": "m metres meters metre meter 米",
        "inch": "inches inch 英寸",
        "px": "px pixels pixel 像素",
    },
    "duration": {
        "s": "s sec secs seconds second 秒钟 秒",
        "min": "min mins minutes minute 分钟 分",
        "h": "h hrs hr hours hour 小时 钟头",
        "d": "d days day 天",
        "week": "weeks week 周 星期",
    },
    "percent": {"%": "% percent per_cent 百分点"},
    "size": {"kb": "kb kilobytes kilobyte", "mb": "mb megabytes megabyte", "gb": "gb gigabytes gigabyte"},
    "angle": {"°": "° degrees degree 度"},
}
_NAMES = {
    name.replace("_", " "): (kind, symbol)
    for kind, symbols in UNITS.items()
    for symbol, names in symbols.items()
    for name in names.split()
}
_UNIT = "|".join(sorted(map(re.escape, _NAMES), key=len, reverse=True))
MONTHS = "january february march april may june july august september october november december".split()
_MONTH = "|".join(f"{m}|{m[:3]}" if m != "may" else m for m in MONTHS)
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_HAN_DAYS = dict(zip("一二三四五六日天", [*_DAYS, "sunday"], strict=True))
_RELATIVE = {
    "today": "today", "tonight": "today", "今天": "today", "今日": "today",
    "tomorrow": "today+1", "明天": "today+1", "明日": "today+1",
    "the day after tomorrow": "today+2", "day after tomorrow": "today+2", "后天": "today+2",
    "yesterday": "today-1", "昨天": "today-1",
}  # fmt: skip
_HAN_NUMERAL = "[0-9零〇一二三四五六七八九十]"


def _hundredth(m: re.Match, _: str) -> tuple[str, str] | None:
    value = number(m[1])
    return None if value is None else ("percent", f"{plain(value)} %")


def _half(m: re.Match, _: str) -> tuple[str, str] | None:
    kind, symbol = _NAMES[m[1]]
    return kind, f"0.5 {symbol}"


def _quantity(m: re.Match, _: str) -> tuple[str, str] | None:
    value = Decimal(1) if m["number"] in ("a", "an") else number(m["number"])
    kind, symbol = _NAMES[m["unit"]]
    return None if value is None else (kind, f"{plain(value + Decimal('0.5') if m['half'] else value)} {symbol}")


def _day(year: str | None, month: int, day: str) -> tuple[str, str] | None:
    """ISO 8601; without a year --MM-DD. None: no such day."""
    y, d = number(year) if year else None, number(day)
    if d is None or year and y is None:
        return None
    try:
        datetime.date(int(y) if y is not None else 2000, month, int(d))  # 2000 has a 29 February
    except ValueError:
        return None
    return "date", f"{int(y):04d}-{month:02d}-{int(d):02d}" if y is not None else f"--{month:02d}-{int(d):02d}"


def _date(m: re.Match, _: str) -> tuple[str, str] | None:
    if m["word"]:
        return "date", _RELATIVE.get(m["word"], m["word"])
    if m["weekday"]:
        return "date", ("next " if m["next"] else "") + m["weekday"]
    if m["han_weekday"]:
        return "date", ("next " if m["han_next"] else "") + _HAN_DAYS[m["han_weekday"]]
    if m["han_month"]:
        month = number(m["han_month"])
        return _day(m["han_year"], int(month), m["han_day"]) if month is not None else None
    name = m["month"] or m["month2"]
    month = 1 + [x[:3] for x in MONTHS].index(name[:3]) if name else int(m["iso_month"] or m["iso_month2"])
    return _day(m["year"] or m["year2"] or m["iso_year"], month, m["day"] or m["day2"] or m["iso_day"] or m["iso_day2"])


def _clock(hour: Decimal | None, minute: Decimal | None, late: str | None = None) -> tuple[str, str] | None:
    """HH:MM of a day of 24 hours; late: "am", "pm" or nothing, which leaves the hour as it was said."""
    if hour is None or minute is None or not (0 <= hour <= 24 and 0 <= minute < 60):
        return None
    h = int(hour) % 24
    if late and h <= 12:
        h = h % 12 + (12 if late == "pm" else 0)
    return "time", f"{h:02d}:{int(minute):02d}"


def _past(m: re.Match, _: str) -> tuple[str, str] | None:
    """half past five, ten to six pm."""
    said = m["minutes"].removeprefix("a ")
    minutes = {"half": Decimal(30), "quarter": Decimal(15)}.get(said) or number(said)
    hour = number(m["hour"])
    if minutes is None or hour is None or not 0 < minutes < 60:
        return None
    if m["way"] == "past":
        return _clock(hour, minutes, m["late"])
    return _clock(hour - 1 or Decimal(12), 60 - minutes, m["late"])


def _time(m: re.Match, _: str) -> tuple[str, str] | None:
    return _clock(number(m["hour"]), Decimal(m["minute"] or 0), m["late"])


def _oclock(m: re.Match, _: str) -> tuple[str, str] | None:
    return _clock(number(m["hour"]), Decimal(0), m["late"])


def _han_time(m: re.Match, _: str) -> tuple[str, str] | None:
    hour = number(m["hour"])
    late = "pm" if m["part"] in ("下午", "晚上", "傍晚") else "am" if m["part"] else None
    if m["part"] == "中午" and hour is not None and hour in (12, 1, 2):
        late = "pm"
    said = m["minute"] or m["bare"]
    minute = number(said) if said else Decimal({"半": 30, "一刻": 15, "三刻": 45}.get(m["quarter"], 0))
    return _clock(hour, minute, late)


def _numbers(text: str) -> Iterator[tuple[int, int, Decimal]]:
    """(start, end, value) of the numerals; "twenty twenty" is two of them."""
    for match in _NUMERAL.finditer(text):
        value = number(match[0])
        if value is not None:
            yield *match.span(), value
        elif match[0].isascii():
            words = list(re.finditer("[a-z]+", match[0]))
            k = 0
            while k < len(words):
                value, used = english_number([word[0] for word in words[k:]])
                if value is not None:
                    yield match.start() + words[k].start(), match.start() + words[k + used - 1].end(), value
                k += max(1, used)


_HOUR = rf"(?P<hour>\d{{1,2}}|{'|'.join(ONES[12:0:-1])})"
_LATE = r"(?: ?(?P<late>[ap]m)\b)?"
Scanner = tuple[re.Pattern, Callable[[re.Match, str], "tuple[str, str] | None"]]
# In order: of two data words of the same length the earlier one wins. Every repetition is bounded, and no part can
# match the same characters in two ways for long, so that reading stays linear in the text.
SCANNERS: tuple[Scanner, ...] = (
    (
        re.compile('"[^"\n]{1,300}"|“[^”\n]{1,300}”|「[^」\n]{1,300}」|『[^』\n]{1,300}』|《[^》\n]{1,300}》'),
        lambda m, source: (TEXT, source[1:-1].strip()) if source[1:-1].strip() else None,
    ),
    (
        re.compile(
            r"(?:https?://|www\.)[!-~]{1,300}(?<![.,;:!?)\]'\"])"
            r"|[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,4}\.(?:com|org|net|io|edu|gov|cn|de|uk|dev)\b(?:/[!-~]{0,200}(?<![.,;:!?)\]'\"]))?"
        ),
        lambda m, source: ("url", source),
    ),
    (
        re.compile(
            r"[a-z_][\w-]{0,60}\.[a-z][a-z0-9]{1,4}(?![\w.-]*@)|(?:~/(?:[\w.-]{1,60}/){0,8}|/(?:[\w.-]{1,60}/){1,8})[\w.-]{1,60}",
            re.ASCII,
        ),
        lambda m, source: ("file", source),
    ),
    (
        re.compile(r"\( ?(-?\d{1,9}(?:\.\d{1,6})?) ?, ?(-?\d{1,9}(?:\.\d{1,6})?) ?\)"),
        lambda m, _: ("position", f"({plain(Decimal(m[1]))}, {plain(Decimal(m[2]))})"),
    ),
    (
        re.compile(
            rf"(?P<word>today[+-]\d|{'|'.join(_RELATIVE)})"
            rf"|(?P<next>next )?(?P<weekday>{'|'.join(_DAYS)})"
            r"|(?P<han_next>下个?)?(?:星期|周|礼拜)(?P<han_weekday>[一二三四五六日天])"
            rf"|(?:(?P<han_year>{_HAN_NUMERAL}{{4}})年)?(?P<han_month>{_HAN_NUMERAL}{{1,2}})月(?P<han_day>{_HAN_NUMERAL}{{1,3}})[日号]"
            rf"|(?P<month>{_MONTH})\.? (?:the )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,? (?P<year>\d{{4}}))?(?!\d)"
            rf"|(?P<day2>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?(?P<month2>{_MONTH})(?:,? (?P<year2>\d{{4}}))?(?!\d)"
            r"|(?P<iso_year>\d{4})[-/](?P<iso_month>0?[1-9]|1[0-2])[-/](?P<iso_day>\d{1,2})(?!\d)"
            r"|--(?P<iso_month2>0[1-9]|1[0-2])-(?P<iso_day2>\d\d)(?!\d)"
        ),
        _date,
    ),
    (re.compile(r"(?P<hour>2[0-4]|[01]?\d):(?P<minute>[0-5]\d)(?!\d)(?: ?(?P<late>[ap]m)\b)?"), _time),
    (re.compile(r"(?P<hour>1[0-2]|[1-9])(?P<minute>)? ?(?P<late>[ap]m)\b"), _time),
    (re.compile(rf"{_HOUR} o'?clock{_LATE}"), _oclock),
    (
        re.compile(
            rf"(?P<minutes>half|(?:a )?quarter|\d{{1,2}}|{_ENGLISH})(?: minutes)? (?P<way>past|to) {_HOUR}\b{_LATE}"
        ),
        _past,
    ),
    (re.compile("noon|midday|midnight"), lambda m, _: ("time", "00:00" if m[0] == "midnight" else "12:00")),
    (
        re.compile(
            rf"(?P<part>凌晨|早上|上午|中午|下午|傍晚|晚上)?(?P<hour>{_HAN_NUMERAL}{{1,3}}|两)[点时]"
            rf"(?:钟|整|(?P<quarter>半|一刻|三刻)|(?P<minute>{_HAN_NUMERAL}{{1,3}})分|(?P<bare>[二三四五]?十[一二三四五六七八九]?))?"
        ),
        _han_time,
    ),
    (re.compile(rf"百分之({_CHINESE}|\d{{1,9}}(?:\.\d{{1,6}})?)"), _hundredth),
    (re.compile(rf"(?:half an? |half |半个?)({_UNIT})"), _half),
    (re.compile(rf"(?P<number>{_NUMBER}|an?(?= ))(?P<half>个半)?个? ?(?P<unit>{_UNIT})"), _quantity),
)


def scan(normal: Normal) -> list[tuple[int, int, int, tuple[str, str]]]:
    """Data words as (start, end, rank, (type, value)) in the normal text; they may overlap, a lower rank goes first."""
    found = []
    for rank, (pattern, value) in enumerate(SCANNERS):
        for match in pattern.finditer(normal.text):
            start, end = match.span()
            if normal.edge[start] and normal.edge[end]:
                hit = value(match, normal.source[normal.begin[start] : normal.end[end - 1]])
                if hit:
                    found.append((start, end, rank, hit))
    for start, end, value in _numbers(normal.text):
        if normal.edge[start] and normal.edge[end]:
            found.append((start, end, len(SCANNERS), ("number", plain(value))))
    return found
