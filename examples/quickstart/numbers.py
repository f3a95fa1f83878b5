"""Numbers and times of day in both languages."""

DIGITS = "零一二三四五六七八九"
ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen""".split()
_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()


def english_number(number: int) -> str:
    """A number from 0 to 999,999 in English words."""
    if number < 100:
        tens, ones = divmod(number, 10)
        return ONES[number] if number < 20 else _TENS[tens] + (f"-{ONES[ones]}" if ones else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = divmod(number, size)
    joint = " and " if 0 < rest < 100 else " "
    return f"{english_number(head)} {name}" + (joint + english_number(rest) if rest else "")


def chinese_number(number: int, counting: bool = True) -> str:
    """A number from 0 to 999,999 in Chinese numerals; two things counted are 两."""
    if number == 2 and counting:
        return "两"
    if number >= 10_000:
        head, rest = divmod(number, 10_000)
        zero = "零" if 0 < rest < 1000 else ""
        return chinese_number(head) + "万" + (zero + _zh_digits(rest) if rest else "")
    return _zh_digits(number, leading=True)


def _zh_digits(number: int, leading: bool = False) -> str:
    if number < 10:
        return DIGITS[number]
    text, gap = "", False
    for size, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, number = divmod(number, size)
        if not digit:
            gap = bool(text)
            continue
        two = digit == 2 and leading and not text and size > 10
        one = digit == 1 and size == 10 and leading and not text
        text += ("零" if gap else "") + ("" if one else "两" if two else DIGITS[digit]) + name
        gap = False
    return text


def clock(hour: int, minute: int, spoken: bool = True) -> tuple[str, str]:
    """A time of day such as (half past three, 三点半); unspoken times are written 3:30."""
    zh_hour = chinese_number(hour) + "点"
    if not spoken:
        low = "零" if 0 < minute < 10 else ""
        return f"{hour}:{minute:02d}", zh_hour + (low + chinese_number(minute, False) + "分" if minute else "")
    if minute in (0, 30):
        return (f"half past {ONES[hour]}", zh_hour + "半") if minute else (f"{ONES[hour]} o'clock", zh_hour)
    away = min(minute, 60 - minute)
    english, zh = ("a quarter", "一刻") if away == 15 else (english_number(away), chinese_number(away, False) + "分")
    if minute < 30:
        return f"{english} past {ONES[hour]}", zh_hour + zh
    return f"{english} to {ONES[hour % 12 + 1]}", "差" + zh + chinese_number(hour % 12 + 1) + "点"
