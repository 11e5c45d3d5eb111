"""This file is about following a prefill's staircase: everything copied, nothing too early."""

from hypothesis import given
from hypothesis import strategies as st

from epidote_engine.events import KvReady
from epidote_workers.kv_spans import KvProgress, Piece, merge_spans
from epidote_workers.messages import KvSpan


def test_layers_of_one_chunk_are_merged_and_chunks_are_not() -> None:
    def span(start: int, end: int, layer: int) -> KvReady:
        return KvReady(
            request_id="r",
            block_ids=(4, 5),
            start_token=start,
            end_token=end,
            first_layer=layer,
            end_layer=layer + 1,
        )

    merged = merge_spans([span(0, 4, 0), span(0, 4, 1), span(0, 4, 2), span(4, 6, 0)])
    assert [(s.start_token, s.first_layer, s.end_layer) for s in merged] == [(0, 0, 3), (4, 0, 1)]


def test_tokens_before_a_span_are_ready_in_all_layers() -> None:
    progress = KvProgress(num_layers=2, block_size=4, num_tokens=12, num_here=4)
    progress.note(
        KvSpan(start_token=8, end_token=12, first_layer=0, end_layer=1, block_ids=(7, 8, 9))
    )
    assert list(progress.take()) == [Piece(range(0, 1), 1, 3), Piece(range(1, 2), 1, 2)]
    progress.all_ready()
    assert list(progress.take()) == [Piece(range(1, 2), 2, 3)]
    assert list(progress.take()) == []


def test_nothing_is_left_to_copy_when_all_is_here() -> None:
    progress = KvProgress(num_layers=2, block_size=4, num_tokens=10, num_here=10)
    progress.all_ready()
    assert list(progress.take()) == []


def test_other_blocks_mean_a_new_beginning() -> None:
    progress = KvProgress(num_layers=1, block_size=4, num_tokens=8, num_here=0)
    progress.note(KvSpan(start_token=0, end_token=4, first_layer=0, end_layer=1, block_ids=(1, 2)))
    assert list(progress.take()) == [Piece(range(1), 0, 1)]
    progress.note(KvSpan(start_token=0, end_token=4, first_layer=0, end_layer=1, block_ids=(5, 6)))
    assert list(progress.take()) == [Piece(range(1), 0, 1)]
    assert progress.source_blocks == (5, 6)


@given(
    num_layers=st.integers(1, 5),
    block_size=st.integers(1, 5),
    cuts=st.lists(st.integers(1, 30), min_size=1, max_size=6, unique=True),
    here=st.integers(0, 3),
    cached=st.integers(0, 2),
    takes=st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_every_block_is_copied_after_its_last_token_was_written(
    num_layers: int, block_size: int, cuts: list[int], here: int, cached: int, takes: list[bool]
) -> None:
    edges = sorted(cuts)
    total = edges[-1]
    here = min(here * block_size, total // block_size * block_size)
    start = min(cached * block_size, (total - 1) // block_size * block_size)
    blocks = tuple(range(-(-total // block_size)))
    written = {(layer, token) for layer in range(num_layers) for token in range(start)}
    copied: dict[tuple[int, int], set[int]] = {}
    progress = KvProgress(
        num_layers=num_layers, block_size=block_size, num_tokens=total, num_here=here
    )

    def copy() -> None:
        for piece in progress.take():
            for layer in piece.layers:
                for block in range(piece.first_block, piece.end_block):
                    assert block * block_size >= here, "shared blocks are never written"
                    tokens = range(block * block_size, min((block + 1) * block_size, total))
                    copied[layer, block] = {t for t in tokens if (layer, t) in written}

    turn = iter(takes)
    for end in [edge for edge in edges if edge > start]:
        for layer in range(num_layers):
            written |= {(layer, token) for token in range(start, end)}
            progress.note(
                KvSpan(
                    start_token=start,
                    end_token=end,
                    first_layer=layer,
                    end_layer=layer + 1,
                    block_ids=blocks,
                )
            )
            if next(turn):
                copy()
        start = end
    progress.all_ready()
    copy()
    assert list(progress.take()) == []
    for layer in range(num_layers):
        for block in range(here // block_size, len(blocks)):
            tokens = range(block * block_size, min((block + 1) * block_size, total))
            assert copied[layer, block] == set(tokens)
