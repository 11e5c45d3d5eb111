"""This file is about one date or time having one form, however it was written."""

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK = re.compile(r"(\d{1,2})(?:[:.](\d{2}))?(?::\d{2})? ?([ap])?(?:\.?m\.?)?")

_SPOKEN = re.compile(r"(?:a )?([\w-]+)(?: minutes)? (past|to) (\w+)")
_MINUTES = {"quarter": 15, "half": 30, "five": 5, "ten": 10, "twenty": 20, "twenty-five": 25}
_HOURS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    "twelve",
)


def date_value(text: str) -> str:
    """Canonical form of a date, time or relative day in lower case.

    >>> [date_value(text) for text in ("5 march", "march 5th", "2024-03-05", "march 5, 2024")]
    ['--03-05', '--03-05', '2024-03-05', '2024-03-05']
    >>> [date_value(text) for text in ("5pm", "5 p.m.", "17:00", "noon", "12 am", "mondays")]
    ['17:00', '17:00', '17:00', '12:00', '00:00', 'monday']
    >>> [date_value(text) for text in ("a quarter to nine", "half past 6", "five to noon")]
    ["8:45 o'clock", "6:30 o'clock", '11:55']
    """
    text = " ".join(text.split()).removesuffix("'s")
    spoken = _SPOKEN.fullmatch(text)
    if spoken:
        return _spoken_clock(*spoken.groups())
    if text in ("noon", "midday"):
        return "12:00"
    if text == "midnight":
        return "00:00"
    if re.fullmatch(r"\d{4}-\d{1,2}-\d{1,2}", text):
        year, number, day = text.split("-")
        return f"{year}-{int(number):02d}-{int(day):02d}"
    if text.endswith(("o'clock", "oclock")):
        return f"{int(text.split()[0])} o'clock"
    clock = _CLOCK.fullmatch(text)
    if clock and (clock[3] or ":" in text):
        hour = int(clock[1])
        if clock[3]:
            hour = hour % 12 + (12 if clock[3] == "p" else 0)
        return f"{hour:02d}:{clock[2] or '00'}"
    month_name = re.search(r"[a-z]{3,}", re.sub(r"\d(?:st|nd|rd|th)|\bof\b|\bthe\b", "", text))
    if month_name and month_name[0][:3] in _MONTHS and not text.endswith("day"):
        numbers = re.findall(r"\d+", text)
        years = [number for number in numbers if len(number) == 4]
        days = [number for number in numbers if len(number) < 4]
        month = _MONTHS.index(month_name[0][:3]) + 1
        day = f"-{int(days[0]):02d}" if days else ""
        return f"{years[0] if years else '-'}-{month:02d}{day}"
    return re.sub(r"days$", "day", text).replace("coming", "next").replace("past", "last")


def _spoken_clock(said: str, way: str, hour_said: str) -> str:
    """Of noon and midnight the time of day, else one on the dial."""
    minutes = _MINUTES[said] if said in _MINUTES else int(said)
    of_day = {"noon": 12, "midday": 12, "midnight": 24}.get(hour_said, 0)
    hour = of_day or (int(hour_said) if hour_said.isdigit() else 1 + _HOURS.index(hour_said))
    total = 60 * hour + (minutes if way == "past" else -minutes)
    if of_day:
        return f"{total // 60 % 24:02d}:{total % 60:02d}"
    return f"{(total // 60 - 1) % 12 + 1}:{total % 60:02d} o'clock"
