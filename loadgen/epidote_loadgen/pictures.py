"""Pictures of coloured shapes and digits, drawn from a seed, whose content is known exactly.

A picture has nine named places, three across and three down:

    | top left    | top    | top right    |
    | left        | center | right        |
    | bottom left | bottom | bottom right |

A `Scene` says what stands where; `draw` turns it into pixels and `encode` into a file a client
could send. Nothing here reads a clock or a global generator: equal arguments give equal bytes
(with the same Pillow release, which owns the rasteriser, the font and the file encoders).
"""

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from random import Random

from PIL import Image, ImageDraw, ImageFont

Rgb = tuple[int, int, int]
Point = tuple[float, float]


class Colour(StrEnum):
    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"
    PINK = "pink"
    BLACK = "black"


class Shape(StrEnum):
    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    CROSS = "cross"


class Place(StrEnum):
    """Where in the picture, in reading order."""

    TOP_LEFT = "top left"
    TOP = "top"
    TOP_RIGHT = "top right"
    LEFT = "left"
    CENTER = "center"
    RIGHT = "right"
    BOTTOM_LEFT = "bottom left"
    BOTTOM = "bottom"
    BOTTOM_RIGHT = "bottom right"

    @property
    def row(self) -> int:
        """0 at the top, 2 at the bottom."""
        return tuple(Place).index(self) // 3

    @property
    def column(self) -> int:
        """0 at the left, 2 at the right."""
        return tuple(Place).index(self) % 3


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class ImageFormat(StrEnum):
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def media_type(self) -> str:
        """The `Content-Type` of a file in this format."""
        return f"image/{self.value}"


RGB: dict[Colour, Rgb] = {
    Colour.RED: (215, 25, 30),
    Colour.ORANGE: (250, 135, 10),
    Colour.YELLOW: (245, 220, 20),
    Colour.GREEN: (25, 150, 50),
    Colour.BLUE: (30, 75, 215),
    Colour.PURPLE: (120, 35, 160),
    Colour.PINK: (250, 140, 195),
    Colour.BLACK: (15, 15, 15),
}
BACKGROUNDS: tuple[Rgb, ...] = ((255, 255, 255), (240, 240, 240), (250, 244, 228), (226, 238, 246))

# Share of half the cell's shorter side that an item's radius takes.
RADIUS_RATIO: dict[Size, float] = {Size.SMALL: 0.55, Size.LARGE: 0.92}
MAX_ASPECT = 2.0  # beyond 2:1 the demo model's processor leaves fewer than three rows of tokens
COLOUR_JITTER = 8  # per channel, of 255: far below the distance between any two named colours


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing in a picture: a shape, or a digit (always large).

    `shift_x` and `shift_y` move it off the middle of its place, in [-1, 1], where 1 touches the
    edge of the place. `fill` is the colour as drawn, close to `RGB[colour]`.
    """

    colour: Colour
    form: Shape | int
    place: Place
    size: Size
    shift_x: float
    shift_y: float
    fill: Rgb

    def __post_init__(self) -> None:
        if isinstance(self.form, int) and not 0 <= self.form <= 9:
            raise ValueError(f"form: a digit must be in 0..9, got {self.form}")
        if not (-1.0 <= self.shift_x <= 1.0 and -1.0 <= self.shift_y <= 1.0):
            raise ValueError(f"shift: must be in [-1, 1], got {self.shift_x}, {self.shift_y}")

    @property
    def is_digit(self) -> bool:
        return isinstance(self.form, int)

    @property
    def name(self) -> str:
        """Colour and form, as in "red circle" or "blue 7"."""
        return f"{self.colour} {self.form}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a picture shows: its ground truth. Items stand in reading order, one to a place.

    Raises:
        ValueError: an empty picture area, two items in one place, or items out of order.
    """

    width_px: int
    height_px: int
    background: Rgb
    items: tuple[Item, ...]

    def __post_init__(self) -> None:
        if self.width_px < 1 or self.height_px < 1:
            raise ValueError(f"picture size must be >= 1 px, got {self.width_px}x{self.height_px}")
        order = [tuple(Place).index(item.place) for item in self.items]
        if order != sorted(set(order)):
            raise ValueError(f"items: one to a place and in reading order, got {order}")

    @property
    def shapes(self) -> tuple[Item, ...]:
        """The items that are not digits."""
        return tuple(item for item in self.items if not item.is_digit)

    @property
    def digits(self) -> tuple[Item, ...]:
        """The items that are digits."""
        return tuple(item for item in self.items if item.is_digit)

    def count(self, *, colour: Colour | None = None, shape: Shape | None = None) -> int:
        """How many shapes have this colour and form; None matches any. Digits never count."""
        return sum(
            1
            for item in self.shapes
            if (colour is None or item.colour is colour) and (shape is None or item.form is shape)
        )


def sample_size(rng: Random, *, min_px: int = 96, max_px: int = 320) -> tuple[int, int]:
    """Width and height in pixels, up to `MAX_ASPECT` to one either way.

    The geometric mean of the two is log-uniform in [min_px, max_px], so that small pictures are as
    common as large ones.
    """
    mean = math.exp(rng.uniform(math.log(min_px), math.log(max_px)))
    aspect = MAX_ASPECT ** rng.uniform(-1.0, 1.0) if rng.random() < 0.7 else 1.0
    # rounding must not push a 2:1 picture past 2:1
    width, height = round(mean * math.sqrt(aspect)), round(mean / math.sqrt(aspect))
    longest = math.floor(MAX_ASPECT * min(width, height))
    return min(width, longest), min(height, longest)


def sample_scene(
    rng: Random,
    *,
    min_items: int = 1,
    max_items: int = 6,
    size_px: tuple[int, int] | None = None,
    digit_ratio: float = 0.5,
) -> Scene:
    """A scene with `min_items` to `max_items` items. Mutates `rng` only.

    Few colours and few forms are drawn for each scene, so that several items share one and
    counting means something. A share `digit_ratio` of the scenes also holds one or two digits.

    >>> sample_scene(Random(1)) == sample_scene(Random(1))
    True

    Raises:
        ValueError: more items than the nine places, or fewer than one.
    """
    if not 1 <= min_items <= max_items <= len(Place):
        raise ValueError(f"items: 1 <= min <= max <= 9, got {min_items}..{max_items}")
    width_px, height_px = size_px or sample_size(rng)
    num_items = rng.randint(min_items, max_items)
    num_digits = min(num_items, rng.choice((1, 1, 2))) if rng.random() < digit_ratio else 0
    colours = rng.sample(tuple(Colour), rng.randint(2, 4))
    shapes = rng.sample(tuple(Shape), rng.randint(1, 3))
    digits = rng.sample(range(10), num_digits)
    digit_slots = set(rng.sample(range(num_items), num_digits))
    places = sorted(rng.sample(tuple(Place), num_items), key=tuple(Place).index)
    items = []
    for slot, place in enumerate(places):
        is_digit = slot in digit_slots
        colour = rng.choice(colours)
        items.append(
            Item(
                colour=colour,
                form=digits.pop() if is_digit else rng.choice(shapes),
                place=place,
                size=Size.LARGE if is_digit or rng.random() < 0.5 else Size.SMALL,
                shift_x=round(rng.uniform(-0.6, 0.6), 3),
                shift_y=round(rng.uniform(-0.6, 0.6), 3),
                fill=_near(RGB[colour], rng),
            )
        )
    return Scene(
        width_px=width_px,
        height_px=height_px,
        background=rng.choice(BACKGROUNDS),
        items=tuple(items),
    )


def draw(scene: Scene) -> Image.Image:
    """The picture of `scene`, in RGB, exactly `width_px` by `height_px`."""
    image = Image.new("RGB", (scene.width_px, scene.height_px), scene.background)
    pen = ImageDraw.Draw(image)
    for item in scene.items:
        x, y, radius = placement(scene, item)
        match item.form:
            case int(digit):
                _draw_digit(pen, digit, x, y, radius, item.fill)
            case shape:
                _draw_shape(pen, shape, x, y, radius, item.fill)
    return image


def placement(scene: Scene, item: Item) -> tuple[float, float, float]:
    """Where `draw` puts `item`: its middle (x, y) and its radius, in pixels."""
    cell_width, cell_height = scene.width_px / 3, scene.height_px / 3
    radius = RADIUS_RATIO[item.size] * min(cell_width, cell_height) / 2
    x = (item.place.column + 0.5) * cell_width + item.shift_x * (cell_width / 2 - radius)
    y = (item.place.row + 0.5) * cell_height + item.shift_y * (cell_height / 2 - radius)
    return x, y, radius


def encode(image: Image.Image, image_format: ImageFormat, *, quality: int = 90) -> bytes:
    """`image` as a file of that format. PNG loses nothing; `quality` (1-100) is for the others."""
    buffer = io.BytesIO()
    match image_format:
        case ImageFormat.PNG:
            image.save(buffer, "PNG", compress_level=1)
        case ImageFormat.JPEG:
            image.save(buffer, "JPEG", quality=quality)
        case ImageFormat.WEBP:
            image.save(buffer, "WEBP", quality=quality, method=0)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    """The picture in an image file, in RGB.

    Raises:
        ValueError: the bytes are no image that Pillow can read.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except OSError as error:
        raise ValueError(f"an image file was wanted, got {len(data)} unreadable bytes") from error


def _near(rgb: Rgb, rng: Random) -> Rgb:
    red, green, blue = (
        min(255, max(0, channel + rng.randint(-COLOUR_JITTER, COLOUR_JITTER))) for channel in rgb
    )
    return red, green, blue


def _draw_shape(
    pen: ImageDraw.ImageDraw, shape: Shape, x: float, y: float, radius: float, fill: Rgb
) -> None:
    match shape:
        case Shape.CIRCLE:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        case Shape.SQUARE:
            side = 0.86 * radius
            pen.rectangle((x - side, y - side, x + side, y + side), fill=fill)
        case Shape.TRIANGLE:
            corners = (
                (x, y - radius),
                (x - radius, y + 0.8 * radius),
                (x + radius, y + 0.8 * radius),
            )
            pen.polygon(corners, fill=fill)
        case Shape.STAR:
            pen.polygon(list(_star(x, y, radius)), fill=fill)
        case Shape.CROSS:
            arm = 0.3 * radius
            pen.rectangle((x - radius, y - arm, x + radius, y + arm), fill=fill)
            pen.rectangle((x - arm, y - radius, x + arm, y + radius), fill=fill)


def _star(x: float, y: float, radius: float) -> Iterable[Point]:
    """Ten corners of a five-pointed star, one point up."""
    for corner in range(10):
        reach = radius if corner % 2 == 0 else 0.42 * radius
        angle = math.pi * corner / 5 - math.pi / 2
        yield x + reach * math.cos(angle), y + reach * math.sin(angle)


def _draw_digit(
    pen: ImageDraw.ImageDraw, digit: int, x: float, y: float, radius: float, fill: Rgb
) -> None:
    # a glyph of this font is about 0.7 em high, so 2.6 radii make it fill the place
    font = _font(max(6, round(2.6 * radius)))
    pen.text((x, y), str(digit), fill=fill, font=font, anchor="mm", stroke_width=round(radius / 16))


@lru_cache(maxsize=512)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow built without FreeType
        raise RuntimeError("drawing digits needs Pillow with FreeType, as in its wheels")
    return font
