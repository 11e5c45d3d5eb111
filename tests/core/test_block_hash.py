"""Blocks share a name exactly when prefix, media and salt agree."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from epidote_core.block_hash import chain, media_in_block
from epidote_core.generation import MediaKind, MediaSpan

TOKENS = st.lists(st.integers(0, 2**31 - 1), min_size=0, max_size=40)


def image(key: str, offset: int, num_tokens: int) -> MediaSpan:
    return MediaSpan(
        key=key, kind=MediaKind.IMAGE, offset=offset, num_tokens=num_tokens, grid_thw=(1, 2, 2)
    )


@given(TOKENS, TOKENS, st.integers(1, 8))
def test_equal_names_are_exactly_the_common_prefix_of_full_blocks(
    a: list[int], b: list[int], block_size: int
) -> None:
    common = 0
    while common < min(len(a), len(b)) and a[common] == b[common]:
        common += 1
    names_a, names_b = list(chain(a, block_size)), list(chain(b, block_size))
    shared = sum(x == y for x, y in zip(names_a, names_b, strict=False))
    assert shared == common // block_size
    assert set(names_a[shared:]).isdisjoint(names_b[shared:])


@given(TOKENS, st.integers(1, 8))
def test_another_salt_shares_no_block(tokens: list[int], block_size: int) -> None:
    mine = set(chain(tokens, block_size, salt="tenant-a"))
    assert mine.isdisjoint(chain(tokens, block_size, salt="tenant-b"))


def test_same_placeholders_of_another_image_have_another_name_from_its_first_block_on() -> None:
    tokens = [7, 7, *[99] * 6, 8, 8]
    cat, dog = image("cat", 2, 6), image("dog", 2, 6)
    with_cat = list(chain(tokens, 2, media=[cat]))
    with_dog = list(chain(tokens, 2, media=[dog]))
    assert with_cat[0] == with_dog[0]  # the text before the image is still shared
    assert all(a != b for a, b in zip(with_cat[1:], with_dog[1:], strict=True))
    assert with_cat == list(chain(tokens, 2, media=[replace(cat)]))


def test_blocks_inside_one_image_differ_though_their_tokens_are_equal() -> None:
    names = list(chain([99] * 8, 2, media=[image("cat", 0, 8)]))
    assert len(set(names)) == 4


def test_an_image_that_begins_elsewhere_in_the_block_has_another_position() -> None:
    assert media_in_block([image("cat", 1, 6)], 0, 4) == (("cat", 0),)
    assert media_in_block([image("cat", 1, 6)], 4, 8) == (("cat", 3),)
    assert media_in_block([image("cat", 1, 6)], 8, 12) == ()


def test_runs_of_one_video_are_counted_through() -> None:
    video = MediaSpan(
        key="clip", kind=MediaKind.VIDEO, offset=1, num_tokens=6, grid_thw=(2, 2, 6),
        runs=((1, 3), (6, 3)),
    )  # fmt: skip
    assert media_in_block([video], 0, 8) == (("clip", 0), ("clip", 3))
    assert media_in_block([video], 8, 12) == (("clip", 5),)
    assert video.end == 9
