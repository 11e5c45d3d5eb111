"""This file is about symbols of units in which case is a factor: mW and MW, Mb and MB."""

from collections import defaultdict

from epidote_gateway.cache.meaning.guards.lexicon import words

_PREFIXES = ("", "n", "u", "µ", "m", "k", "M", "G", "T", "P")
_BASES = words("W Wh Wp VA Hz Pa m V A Ah J N eV g b B bit bps Bps F H S T mol Gy Sv Bq")


def _ambiguous() -> frozenset[str]:
    """Symbols in lower case that two different units share."""
    found: dict[str, set[str]] = defaultdict(set)
    for symbol in (prefix + base for prefix in _PREFIXES for base in _BASES):
        found[symbol.lower()].add(symbol)
    for lower, symbol in (("h", "H"), ("k", "K"), ("s", "S"), ("t", "T")):
        found[lower] |= {lower, symbol}
    return frozenset(lower for lower, symbols in found.items() if len(symbols) > 1)


_AMBIGUOUS = _ambiguous()
_EXACT = {
    "mg": "milligram",
    "kB": "kilobyte",
    "MB": "megabyte",
    "GB": "gigabyte",
    "TB": "terabyte",
    "B": "byte",
    "s": "second",
    "ms": "millisecond",
    "h": "hour",
    "mm": "millimetre",
    "t": "tonne",
    "K": "kelvin",
    "MHz": "megahertz",
}


def unit_symbol(written: str) -> str:
    """What a symbol right behind a number stands for; "" if it is none whose case matters.

    A sloppy one, `mb`, stands for itself: it may be either.

    >>> [unit_symbol(text) for text in ("mW", "MW", "mw", "MB", "Mb", "mg", "km", "KM")]
    ['mW', 'MW', 'mw', 'megabyte', 'Mb', 'milligram', '', '']
    """
    if written in _EXACT:
        return _EXACT[written]
    return written if written.lower() in _AMBIGUOUS else ""
