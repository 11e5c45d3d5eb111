"""Every public trace format gives the same kind of rows, and a broken row is named by its line."""

import gzip
import json
import pickle
from pathlib import Path

import pytest

from epidote_loadgen.traces.bad_rows import BadRows, TraceError
from epidote_loadgen.traces.reading import TraceFormat, read_rows
from epidote_loadgen.traces.replay import Replay
from epidote_loadgen.traces.trace_row import TraceRow
from epidote_loadgen.traces.trace_window import Trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:46.6805900,879,55
"""
AZURE_IMAGES = """TIMESTAMP,NumImages,ContextTokens,GeneratedTokens
2025-03-01 00:00:00.0000000,0,90,10
2025-03-01 00:00:01.5000000,3,4000,20
"""
SERVEGEN = """t_s,client_id,text_tokens,image_count,image_tokens,output_tokens
0.0,7,75,1,252,179
0.5,8,217,3,100 64 9,12
2.0,8,30,0,,5
"""
MOONCAKE = "\n".join(
    json.dumps({"timestamp": t, "input_length": n, "output_length": o, "hash_ids": ids})
    for t, n, o, ids in ((0, 1030, 5, [0, 1, 2]), (1500, 700, 9, [0, 3]))
)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_azure_conversations_count_from_their_first_row(tmp_path: Path) -> None:
    rows = list(read_rows(write(tmp_path / "a.csv", AZURE)))
    assert [row.at_s for row in rows] == pytest.approx([0.0, 4.314579, 60.0])
    assert [(row.text_tokens, row.output_tokens) for row in rows] == [
        (374, 44),
        (396, 109),
        (879, 55),
    ]


def test_azure_images_are_counted_but_have_no_size(tmp_path: Path) -> None:
    rows = list(read_rows(write(tmp_path / "a.csv", AZURE_IMAGES)))
    assert [row.image_tokens for row in rows] == [(), (0, 0, 0)]
    assert rows[1].at_s == 1.5


def test_servegen_rows_keep_the_size_of_each_image(tmp_path: Path) -> None:
    rows = list(read_rows(write(tmp_path / "s.csv", SERVEGEN)))
    assert [row.image_tokens for row in rows] == [(252,), (100, 64, 9), ()]
    assert [row.prompt_tokens for row in rows] == [327, 390, 30]
    assert rows[0].tenant == "7"


def test_mooncake_rows_keep_the_identity_of_their_prefix(tmp_path: Path) -> None:
    rows = list(read_rows(write(tmp_path / "m.jsonl", MOONCAKE)))
    assert [row.block_ids for row in rows] == [(0, 1, 2), (0, 3)]
    assert rows[1].at_s == 1.5
    assert rows[1].block_tokens == 512


def test_own_rows_may_say_everything(tmp_path: Path) -> None:
    row = {
        "at_s": 0.25,
        "prompt_tokens": 50,
        "output_tokens": 7,
        "image_tokens": [10, 20],
        "image_ids": ["cat", "dog"],
        "tenant": "blue",
        "category": "law",
        "session_id": "s1",
        "turn": 2,
    }
    [read] = read_rows(write(tmp_path / "o.jsonl", json.dumps(row)))
    assert read == TraceRow(
        at_s=0.25,
        text_tokens=20,
        output_tokens=7,
        image_tokens=(10, 20),
        image_ids=("cat", "dog"),
        block_tokens=512,
        tenant="blue",
        category="law",
        session_id="s1",
        turn=2,
    )


def test_a_packed_trace_reads_like_a_plain_one(tmp_path: Path) -> None:
    packed = tmp_path / "s.csv.gz"
    packed.write_bytes(gzip.compress(SERVEGEN.encode()))
    assert list(read_rows(packed)) == list(read_rows(write(tmp_path / "s.csv", SERVEGEN)))


BROKEN = (
    ("a.csv", AZURE.replace("396", "many"), "line 3", "ContextTokens", "'many'"),
    ("a.csv", AZURE.replace("396", "-396"), "line 3", "ContextTokens", "from 0"),
    ("a.csv", AZURE.replace("2023-11-16 18:15:50", "yesterday"), "line 3", "TIMESTAMP", "date"),
    ("a.csv", AZURE.replace(",109", ""), "line 3", "3 columns", "found"),
    ("s.csv", SERVEGEN.replace("100 64 9", "100 64"), "line 3", "image_tokens", "3 sizes"),
    ("s.csv", SERVEGEN.replace("0.5,8", "nan,8"), "line 3", "t_s", "time"),
    ("m.jsonl", MOONCAKE.replace("1500", '"soon"'), "line 2", "timestamp", "'soon'"),
    ("m.jsonl", MOONCAKE + "\n{broken", "line 3", "JSON object", "{broken"),
    ("m.jsonl", MOONCAKE.replace("[0, 3]", "3"), "line 2", "hash_ids", "list"),
    ("o.jsonl", '{"at_s": 0, "output_tokens": 1, "colour": 3}', "line 1", "colour", "known"),
    ("o.jsonl", '{"at_s": 0, "output_tokens": true}', "line 1", "output_tokens", "True"),
)


@pytest.mark.parametrize(("name", "text", "line", "column", "why"), BROKEN)
def test_a_bad_row_is_refused_by_line_and_column(
    tmp_path: Path, name: str, text: str, line: str, column: str, why: str
) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(TraceError) as refused:
        list(read_rows(path))
    for part in (str(path), line, column, why):
        assert part in str(refused.value)


def test_bad_rows_are_skipped_and_counted_up_to_what_is_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", AZURE.replace("396", "many"))
    trace = Trace(path=path, max_bad_rows=1)
    assert [row.text_tokens for row in trace.rows] == [374, 879]
    assert (trace.bad.count, trace.bad.first[0].split(":")[0]) == (1, "line 3")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", "found nothing"),
        ("a,b\n1,2\n", "TIMESTAMP"),
        ('{"time": 3}', "timestamp or at_s"),
        ("\x1f\x8b", "can't be read|line 1"),
    ],
)
def test_a_file_of_no_known_format_is_refused(tmp_path: Path, text: str, want: str) -> None:
    with pytest.raises(TraceError, match=want):
        list(read_rows(write(tmp_path / "x.csv", text)))


def test_a_missing_or_cut_off_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"gone\.csv"):
        list(read_rows(tmp_path / "gone.csv"))
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress((SERVEGEN + "3.0,8,30,0,,5\n" * 5000).encode())[:-12])
    with pytest.raises(TraceError, match="can't be read"):
        list(read_rows(cut))


def test_asking_for_another_format_than_the_file_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="TIMESTAMP"):
        list(read_rows(write(tmp_path / "s.csv", SERVEGEN), trace_format=TraceFormat.AZURE))


def test_speed_squeezes_the_time_and_leaves_counts_and_sizes(tmp_path: Path) -> None:
    trace = Trace(path=write(tmp_path / "a.csv", AZURE))
    slots = list(Replay(trace=trace, class_name="azure", speed=60.0).slots())
    assert [slot.intended_send_s for slot in slots] == pytest.approx([0.0, 4.314579 / 60, 1.0])
    assert [(slot.index, slot.item) for slot in slots] == [(0, 0), (1, 1), (2, 2)]


def test_a_window_starts_the_run_at_its_own_start(tmp_path: Path) -> None:
    trace = Trace(path=write(tmp_path / "s.csv", SERVEGEN), start_s=0.4, end_s=1.0)
    [slot] = Replay(trace=trace, class_name="s").slots()
    assert slot.intended_send_s == pytest.approx(0.1)
    assert trace.rows[0].text_tokens == 217


def test_rows_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    lines = SERVEGEN.splitlines()
    path = write(tmp_path / "s.csv", "\n".join([lines[0], lines[2], lines[1], lines[3]]))
    assert [row.at_s for row in Trace(path=path).rows] == [0.0, 0.5, 2.0]


def test_an_empty_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no row lies in"):
        _ = Trace(path=write(tmp_path / "s.csv", SERVEGEN), start_s=500.0).rows


def test_a_trace_travels_to_another_process_without_its_rows(tmp_path: Path) -> None:
    trace = Trace(path=write(tmp_path / "s.csv", SERVEGEN))
    rows = trace.rows
    packed = pickle.dumps(trace)
    assert len(packed) < 1000
    assert pickle.loads(packed).rows == rows


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_no_speed_is_refused(tmp_path: Path, speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        Replay(trace=Trace(path=tmp_path / "s.csv"), class_name="s", speed=speed)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"image_tokens": [10**6]}, "image_tokens: want a whole number from 0 to 65536"),
        ({"images": 10**6}, "images: want a whole number from 0 to 10000"),
        ({"block_ids": [1] * 100, "block_tokens": 10**6}, "block_ids: want blocks of at most"),
        ({"tenant": "a\r\nb"}, "tenant: want printable characters"),
        ({"prompt_tokens": 10**8}, "prompt_tokens: want a whole number from 0 to 10000000"),
    ],
)
def test_a_row_that_would_fill_the_memory_or_break_a_header_is_bad(
    tmp_path: Path, row: dict[str, object], complaint: str
) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"at_s": 0, "prompt_tokens": 9, "output_tokens": 3} | row) + "\n")
    with pytest.raises(TraceError, match=complaint):
        list(read_rows(path))
    assert list(read_rows(path, bad=BadRows(path=path, allowed=1))) == []


def test_as_many_images_as_azures_largest_request_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 12:00:00,9400,5,6\n"
    )
    [row] = read_rows(path)
    assert len(row.image_tokens) == 9400


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (b"1.5,\xff,30,0,,5\n", "line 5: row: want UTF-8, found"),
        (b'1.5,"8,30,0,,5\n', "line 5: row: want 6 columns"),
        (b"1.5,8" + b"8" * 200_000 + b",30,0,,5" + b"\n", "line 5: row: want a row of CSV"),
    ],
)
def test_a_row_of_bytes_that_are_no_text_spoils_itself_alone(
    tmp_path: Path, rows: bytes, complaint: str
) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(SERVEGEN.encode() + rows + b"3.0,8,30,0,,5\n")
    with pytest.raises(TraceError, match=complaint):
        list(read_rows(path))
    bad = BadRows(path=path, allowed=1)
    found = list(read_rows(path, bad=bad))
    assert (len(found), found[-1].at_s, bad.count) == (4, 3.0, 1)


def test_a_json_row_that_is_no_utf_8_is_skipped_as_any_bad_row(tmp_path: Path) -> None:
    good = json.dumps({"at_s": 0, "prompt_tokens": 9, "output_tokens": 3}).encode()
    path = tmp_path / "own.jsonl"
    path.write_bytes(good + b"\n" + good[:-1] + b', "tenant": "\xe9"}\n' + good + b"\n")
    with pytest.raises(TraceError, match="line 2: row: want UTF-8"):
        list(read_rows(path))
    assert len(list(read_rows(path, bad=BadRows(path=path, allowed=1)))) == 2


def test_a_header_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(b"t_s,text_tokens,output_tokens\xff\n1,2,3\n")
    with pytest.raises(TraceError, match="line 1: row: want UTF-8"):
        list(read_rows(path, bad=BadRows(path=path, allowed=9)))


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ('[{"role": "user", "content": "\\uD800 hi"}]', "line 2: row: want whole characters"),
        ("[" * 100_000 + "]" * 100_000, "line 2: row: want a JSON object"),
    ],
)
def test_messages_that_could_never_be_sent_are_a_bad_row(
    tmp_path: Path, messages: str, complaint: str
) -> None:
    good = '{"at_s": 0, "output_tokens": 3, "messages": [{"content": "\\ud83d\\ude00"}]}\n'
    path = tmp_path / "own.jsonl"
    path.write_text(good + good.partition("[")[0] + messages + "}\n" + good)
    with pytest.raises(TraceError, match=complaint):
        list(read_rows(path))
    assert len(list(read_rows(path, bad=BadRows(path=path, allowed=1)))) == 2


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(SERVEGEN, encoding="utf-8-sig")
    assert len(list(read_rows(path))) == 3
