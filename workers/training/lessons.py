"""Lessons: rows of tokens that ask many questions about few pictures, ready to train on.

A row is either a conversation (turn after turn, ordinary causal attention) or a bush: one stem
with the pictures, and many single-turn branches that see the stem and themselves but not each
other. A bush teaches the single-turn format at a dozen questions a picture.

Everything is derived from `(seed, index)`: equal arguments give an equal batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from recipe import FACTOR_PX, MAX_PIXELS, MAX_TOKENS, MERGE, MIN_PIXELS, MODEL_DIR, PATCH_PX
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from epidote_loadgen.pictures import (
    Colour,
    ImageFormat,
    Place,
    Scene,
    Shape,
    Size,
    decode,
    draw,
    encode,
    placement,
    sample_scene,
    sample_size,
)
from epidote_loadgen.questions import Question, QuestionType, ask

ROW_TOKENS = 224
IGNORE = -100
PATCHES = MAX_TOKENS * MERGE**2
PATCH_VALUES = PATCH_PX * PATCH_PX * 3
KINDS = tuple(QuestionType)

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "Answer in a few words.",
    "You answer questions about pictures.",
    "Be brief.",
)

# What each merged token is told about the item whose middle it holds; the last class is "none".
DENSE_CLASSES = {
    "colour": len(Colour) + 1,
    "form": len(Shape) + 10 + 1,
    "size": len(Size) + 1,
    "place": len(Place) + 1,
}


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """One picture as the processor would cut it, before normalisation.

    patches  [PATCHES, PATCH_VALUES] uint8, in merge-group order, rows past the grid zero
    grid     rows and columns of patches
    dense    [MAX_TOKENS, 4] int64, the classes of `DENSE_CLASSES`; IGNORE past the grid
    """

    patches: NDArray[np.uint8]
    grid: tuple[int, int]
    dense: NDArray[np.int64]

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1] // MERGE**2


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step trains on.

    ids, branch, labels  [rows, ROW_TOKENS] int64; branch 0 is the stem, -1 padding
    positions            [3, rows, ROW_TOKENS] int64: time, height, width
    kind                 [rows, ROW_TOKENS] int64: question family of a label, else -1
    question             [rows, ROW_TOKENS] int64: number of the label's question, else -1
    pictures             in the order of their tokens in `ids`
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    branch: NDArray[np.int64]
    labels: NDArray[np.int64]
    kind: NDArray[np.int64]
    question: NDArray[np.int64]
    pictures: list[Pixels]


@lru_cache(maxsize=1)
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(MODEL_DIR)


@lru_cache(maxsize=200_000)
def encoded(text: str) -> tuple[int, ...]:
    """Token ids of `text`, special tokens included."""
    return tuple(tokenizer().encode(text, add_special_tokens=False))


def look(scene: Scene, rng: Random) -> Pixels:
    """The picture as a client would send it and the processor would cut it."""
    image = draw(scene)
    drawn = rng.random()
    if drawn < 0.3:
        image = decode(encode(image, ImageFormat.JPEG, quality=rng.randint(75, 95)))
    elif drawn < 0.4:
        image = decode(encode(image, ImageFormat.WEBP, quality=rng.randint(75, 95)))
    height, width = smart_resize(scene.height_px, scene.width_px, FACTOR_PX, MIN_PIXELS, MAX_PIXELS)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    rows, columns = height // PATCH_PX, width // PATCH_PX
    blocks = pixels.reshape(rows // MERGE, MERGE, PATCH_PX, columns // MERGE, MERGE, PATCH_PX, 3)
    blocks = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, PATCH_VALUES)
    patches = np.zeros((PATCHES, PATCH_VALUES), np.uint8)
    patches[: rows * columns] = blocks
    return Pixels(patches=patches, grid=(rows, columns), dense=_dense(scene, rows, columns))


def _dense(scene: Scene, rows: int, columns: int) -> NDArray[np.int64]:
    token_rows, token_columns = rows // MERGE, columns // MERGE
    dense = np.full((MAX_TOKENS, 4), IGNORE, np.int64)
    dense[: token_rows * token_columns] = [count - 1 for count in DENSE_CLASSES.values()]
    for item in scene.items:
        x, y, _ = placement(scene, item)
        row = min(token_rows - 1, int(y / scene.height_px * token_rows))
        column = min(token_columns - 1, int(x / scene.width_px * token_columns))
        form = len(Shape) + item.form if isinstance(item.form, int) else _index(Shape, item.form)
        dense[row * token_columns + column] = (
            _index(Colour, item.colour),
            form,
            _index(Size, item.size),
            _index(Place, item.place),
        )
    return dense


def _index(members: type, member: object) -> int:
    return tuple(members).index(member)  # type: ignore[arg-type]


@dataclass
class Row:
    """A row being written: token by token, with positions, labels and branches."""

    ids: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    question: list[int] = field(default_factory=list)
    pictures: list[Pixels] = field(default_factory=list)
    next_position: int = 0

    def add(
        self, tokens: Sequence[int], branch: int, *, kind: int = -1, question: int = -1
    ) -> None:
        """Append text; with a `kind` it is an answer, so every token is also a label."""
        for token in tokens:
            self._put(token, (self.next_position,) * 3, branch, kind, question)
            self.next_position += 1

    def add_picture(self, pixels: Pixels, number: int, branch: int) -> None:
        """Append "Picture N:" and the picture's placeholders."""
        self.add(encoded(f"Picture {number}:<|vision_start|>"), branch)
        pad = encoded("<|image_pad|>")[0]
        rows, columns = (side // MERGE for side in pixels.grid)
        start = self.next_position
        for row in range(rows):
            for column in range(columns):
                self._put(pad, (start, start + row, start + column), branch, -1, -1)
        self.next_position = start + max(rows, columns)
        self.add(encoded("<|vision_end|>"), branch)
        self.pictures.append(pixels)

    def _put(
        self, token: int, position: tuple[int, int, int], branch: int, kind: int, question: int
    ) -> None:
        self.ids.append(token)
        self.positions.append(position)
        self.branch.append(branch)
        self.labels.append(token if kind >= 0 else IGNORE)
        self.kind.append(kind)
        self.question.append(question)


def _choose(
    scenes: Sequence[Scene], weights: Mapping[QuestionType, float], rng: Random, text_ratio: float
) -> Question:
    """A question about the scenes, or with probability `text_ratio` about none."""
    with_pictures = bool(scenes) and rng.random() >= text_ratio
    kinds = [
        kind
        for kind in KINDS
        if kind.needs_pictures == with_pictures
        and (not with_pictures or kind.needs_several_pictures == (len(scenes) > 1))
    ]
    shares = [weights[kind] for kind in kinds]
    while True:
        kind = rng.choices(kinds, shares)[0]
        question = ask(kind, scenes, rng)
        if question is not None:
            return question


def write_row(rng: Random, weights: Mapping[QuestionType, float]) -> Row:
    """One row of at most ROW_TOKENS tokens; `weights` says how often each family is asked."""
    row = Row()
    if rng.random() < 0.3:
        row.add(encoded(f"<|im_start|>system\n{rng.choice(SYSTEM_PROMPTS)}<|im_end|>\n"), 0)
    several = weights[QuestionType.WHICH_PICTURE] + weights[QuestionType.IN_PICTURE]
    textual = weights[QuestionType.ARITHMETIC] + weights[QuestionType.FACT]
    total = sum(weights.values())
    drawn = rng.random()
    if drawn < max(0.04, 0.7 * textual / total):
        num_scenes = 0
    elif drawn > 1 - max(0.02, 1.4 * several / total):
        num_scenes = rng.choice((2, 2, 3))
    else:
        num_scenes = 1
    scenes = [
        sample_scene(
            rng,
            max_items=6 if num_scenes == 1 else 4,
            size_px=sample_size(rng, max_px=320 if rng.random() < 0.9 else 640),
        )
        for _ in range(num_scenes)
    ]
    pixels = [look(scene, rng) for scene in scenes]
    if rng.random() < 0.7:
        _write_bush(row, scenes, pixels, weights, rng)
    else:
        _write_conversation(row, scenes, pixels, weights, rng)
    return row


def _write_bush(
    row: Row,
    scenes: Sequence[Scene],
    pixels: Sequence[Pixels],
    weights: Mapping[QuestionType, float],
    rng: Random,
) -> None:
    row.add(encoded("<|im_start|>user\n"), 0)
    for number, picture in enumerate(pixels, start=1):
        row.add_picture(picture, number, 0)
    stem_end = row.next_position
    for branch in range(1, 100):
        question = _choose(scenes, weights, rng, 0.04)
        asked, answered = _turn(question)
        if len(row.ids) + len(asked) + len(answered) > ROW_TOKENS:
            return
        row.next_position = stem_end
        row.add(asked, branch)
        row.add(answered, branch, kind=KINDS.index(question.type), question=branch)


def _write_conversation(
    row: Row,
    scenes: Sequence[Scene],
    pixels: Sequence[Pixels],
    weights: Mapping[QuestionType, float],
    rng: Random,
) -> None:
    """Turns, with all pictures in the first or one more every few turns."""
    shown = 0
    at_once = rng.random() < 0.6
    for turn in range(1, 100):
        due = len(scenes) if at_once else 1 if turn == 1 else rng.choice((0, 0, 1))
        arriving = pixels[shown : shown + due] if shown < len(scenes) else []
        seen = scenes[: shown + len(arriving)]
        question = _choose(seen, weights, rng, 0.04)
        asked, answered = _turn(question)
        needed = sum(picture.num_tokens + 6 for picture in arriving) + 5
        if len(row.ids) + needed + len(asked) + len(answered) > ROW_TOKENS:
            return
        row.add(encoded("<|im_start|>user\n" if turn == 1 else "\n<|im_start|>user\n"), 0)
        for picture in arriving:
            shown += 1
            row.add_picture(picture, shown, 0)
        row.add(asked, 0)
        row.add(answered, 0, kind=KINDS.index(question.type), question=turn)


def _turn(question: Question) -> tuple[tuple[int, ...], tuple[int, ...]]:
    asked = encoded(question.text) + encoded("<|im_end|>\n<|im_start|>assistant\n")
    return asked, encoded(question.answer) + encoded("<|im_end|>")


def make_batch(
    seed: int, index: int, num_rows: int, weights: Mapping[QuestionType, float]
) -> Batch:
    """Batch number `index` of the run with that seed."""
    rng = Random(f"train:{seed}:{index}")
    rows = [write_row(rng, weights) for _ in range(num_rows)]
    shape = (num_rows, ROW_TOKENS)
    batch = Batch(
        ids=np.full(shape, encoded("<|endoftext|>")[0], np.int64),
        positions=np.zeros((3, *shape), np.int64),
        branch=np.full(shape, -1, np.int64),
        labels=np.full(shape, IGNORE, np.int64),
        kind=np.full(shape, -1, np.int64),
        question=np.full(shape, -1, np.int64),
        pictures=[picture for row in rows for picture in row.pictures],
    )
    for at, row in enumerate(rows):
        used = len(row.ids)
        batch.ids[at, :used] = row.ids
        batch.positions[:, at, :used] = np.array(row.positions, np.int64).T
        batch.branch[at, :used] = row.branch
        batch.labels[at, :used] = row.labels
        batch.kind[at, :used] = row.kind
        batch.question[at, :used] = np.where(
            np.array(row.question) >= 0, np.array(row.question) + 100 * at, -1
        )
    return batch


def make_pictures(seed: int, index: int, num_pictures: int) -> list[Pixels]:
    """Pictures alone, for the vision tower's first lessons."""
    rng = Random(f"look:{seed}:{index}")
    return [
        look(sample_scene(rng, min_items=2, size_px=sample_size(rng)), rng)
        for _ in range(num_pictures)
    ]
