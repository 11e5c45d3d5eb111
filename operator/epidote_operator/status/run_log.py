"""This file is about the log of a LoadTest's pod: the report in it, and the words around it. Pure.

The report is one line of JSON on stdout; a container's log has stderr between such lines, and of a
long one only a part may be had.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epidote_operator.spec.shown_urls import without_credentials

START = '{"schema":"epidote-loadgen.run/'
LEFT_OUT = "leftOut"  # of a shortened report: field → its size in bytes, or why it is not there
CUT = "cut off in the log"
MAX_WORDS = 20  # lines
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """`report`: its fields, None if there is none; `words`: everything else, line by line."""

    report: Mapping[str, Any] | None
    words: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why a run ended without a verdict: its last error and what follows; "" of no words."""
        words = [line for line in self.words if line.strip()]
        errors = [number for number, line in enumerate(words) if line.startswith("error:")]
        told = words[errors[-1] :] if errors else words[-MAX_WORDS:]
        return "\n".join(told).removeprefix("error: ")


def read_log(text: str) -> RunLog:
    """The last report wins. No URL in it keeps its password."""
    report: Mapping[str, Any] | None = None
    words = []
    for line in without_credentials(text).splitlines():
        if line.startswith(START):
            report = _whole_fields(line)
        else:
            words.append(line)
    return RunLog(report=report, words=tuple(words))


def fitted(report: Mapping[str, Any], max_bytes: int) -> str:
    """JSON of at most `max_bytes`: the largest fields are left out whole, and named."""
    texts = {name: json.dumps(value, separators=(",", ":")) for name, value in report.items()}
    before, left_out = report.get(LEFT_OUT), dict[str, Any]()
    if isinstance(before, Mapping):  # another image's may be anything
        left_out |= before
        del texts[LEFT_OUT]
    while True:
        told = {**texts, LEFT_OUT: json.dumps(left_out)} if left_out else texts
        found = "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in told.items()) + "}"
        if not texts or len(found.encode()) <= max_bytes:
            return found
        # A field of that name that is none of ours gives way first.
        largest = max(texts, key=lambda name: (name == LEFT_OUT, len(texts[name])))
        left_out[largest] = len(texts.pop(largest).encode())


def _whole_fields(line: str) -> dict[str, Any]:
    """A report's fields; of one that breaks off, those before the break."""
    found: dict[str, Any] = {}
    at, name = 1, ""
    try:
        while line[at] == '"':
            name, at = _DECODER.raw_decode(line, at)
            value, end = _DECODER.raw_decode(line, at + 1)
            if line[end] == "}":
                return {**found, name: value}
            found[name], at, name = value, end + 1, ""  # a comma: the value is whole
    except (ValueError, IndexError):  # where the log breaks off
        pass
    return {**found, LEFT_OUT: {name: CUT}}
