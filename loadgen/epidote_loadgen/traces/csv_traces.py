"""This file is about traces in CSV: Azure's (conversations, images) and ServeGen's columns.

Azure/AzurePublicDataset: TIMESTAMP, ContextTokens, GeneratedTokens and, since 2025, NumImages.
alibaba/ServeGen: t_s, text_tokens, output_tokens, image_count, image_tokens, client_id.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from epidote_loadgen.bounds import MOST_IMAGE_TOKENS, MOST_IMAGES
from epidote_loadgen.traces.bad_rows import BadRow, TraceError, name, seconds, whole
from epidote_loadgen.traces.trace_row import TraceRow

ParseCells = Callable[[Sequence[str]], TraceRow]
Index = Mapping[str, int]  # column name -> position

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
SERVEGEN = ("t_s", "text_tokens", "output_tokens")


def parser_for(header: Sequence[str], *, want: str | None = None) -> ParseCells:
    """The parser of the format that this header belongs to; `want` insists on one.

    Raises:
        TraceError: columns of neither format.
    """
    index = {column.strip(): position for position, column in enumerate(header)}
    for known, needed, make in (("azure", AZURE, _azure), ("servegen", SERVEGEN, _servegen)):
        if want in (None, known) and all(column in index for column in needed):
            return make(index)
    wanted = {"azure": [AZURE], "servegen": [SERVEGEN]}.get(want or "", [AZURE, SERVEGEN])
    columns = " or ".join(",".join(needed) for needed in wanted)
    raise TraceError(f"line 1: want the columns {columns}, found {','.join(header)[:120]!r}")


def _azure(index: Index) -> ParseCells:
    at, prompt, output = (index[column] for column in AZURE)
    images = index.get("NumImages")
    # Times count from the first good row: these traces carry dates.
    first: list[datetime] = []

    def parse(cells: Sequence[str]) -> TraceRow:
        try:
            # Seven digits of a second are more than a datetime takes.
            stamp = datetime.fromisoformat(cells[at][:26])
            elapsed = stamp - (first or [stamp])[0]
        except (ValueError, TypeError):
            raise BadRow("TIMESTAMP", "a date and time", cells[at]) from None
        num_images = 0
        if images is not None:
            num_images = whole(cells[images], "NumImages", most=MOST_IMAGES)
        row = TraceRow(
            at_s=seconds(elapsed.total_seconds(), "TIMESTAMP"),
            text_tokens=whole(cells[prompt], "ContextTokens"),
            output_tokens=whole(cells[output], "GeneratedTokens"),
            image_tokens=(0,) * num_images,
        )
        if not first:
            first.append(stamp)
        return row

    return parse


def _servegen(index: Index) -> ParseCells:
    at, text, output = (index[column] for column in SERVEGEN)
    count, sizes = index.get("image_count"), index.get("image_tokens")
    client = index.get("client_id")

    def parse(cells: Sequence[str]) -> TraceRow:
        images: tuple[int, ...] = ()
        if sizes is not None:
            images = tuple(
                whole(size, "image_tokens", least=1, most=MOST_IMAGE_TOKENS)
                for size in cells[sizes].split(maxsplit=MOST_IMAGES)
            )
        if count is not None:
            counted = whole(cells[count], "image_count", most=MOST_IMAGES)
            if sizes is None:
                images = (0,) * counted
            elif counted != len(images):
                raise BadRow("image_tokens", f"{counted} sizes, as image_count says", cells[sizes])
        return TraceRow(
            at_s=seconds(cells[at], "t_s"),
            text_tokens=whole(cells[text], "text_tokens"),
            output_tokens=whole(cells[output], "output_tokens"),
            image_tokens=images,
            tenant=name(cells[client], "client_id") if client is not None else "",
        )

    return parse
