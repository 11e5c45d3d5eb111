"""Pictures that are none, or too much: 400, naming the field, before much was spent."""

import base64
import struct
import zlib
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from epidote_gateway.api_errors import ApiError
from epidote_gateway.data_url import data_url_bytes
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.image_decoding import ImageLimits, content_key, decode_image

CHAT = "/v1/chat/completions"
FIELD = "messages[0].content[1].image_url.url"


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size and has next to no data."""

    def part(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = part(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + data + part(b"IEND", b"")


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


SMALL = Image.new("RGB", (40, 30), (200, 10, 10))
PNG = encoded(SMALL, "PNG")
JPEG = encoded(SMALL, "JPEG")
FRAMES = [Image.new("RGB", (8, 8), (n, 0, 0)) for n in (0, 255)]

BAD_FILES: list[tuple[str, bytes, str]] = [
    ("empty", b"", "invalid_image"),
    ("text", b"hello, I am a picture", "unsupported_image_type"),
    ("html", b"<html><body>404</body></html>", "unsupported_image_type"),
    ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image_type"),
    ("pdf", b"%PDF-1.7\n%\xe2\xe3", "unsupported_image_type"),
    ("tiff", encoded(SMALL, "TIFF"), "unsupported_image_type"),
    ("ico", encoded(SMALL, "ICO"), "unsupported_image_type"),
    ("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_image_type"),
    ("png signature only", PNG[:8], "unsupported_image_type"),
    ("png cut", PNG[: len(PNG) - 40], "invalid_image"),
    ("png header only", PNG[:33], "unsupported_image_type"),
    ("jpeg cut", JPEG[: len(JPEG) // 2], "invalid_image"),
    ("webp cut", encoded(SMALL, "WEBP")[:40], "invalid_image"),
    ("png without pixels", png_header(0, 10), "unsupported_image_type"),
    ("png that lies", png_header(500, 500), "invalid_image"),
    ("20,000 px square", png_header(20_000, 20_000), "image_too_large"),
    ("20,000 px wide", png_header(20_000, 1_000), "image_too_large"),
    ("20,000 px line", png_header(20_000, 1), "image_too_large"),
    ("bomb of 2**31 pixels", png_header(2**16, 2**15), "image_too_large"),
    ("bomb at the format's limit", png_header(2**31 - 1, 2**31 - 1), "image_too_large"),
    ("gif animation", encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
     "unsupported_image_type"),
    ("webp animation", encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]),
     "unsupported_image_type"),
    ("png animation", encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]),
     "unsupported_image_type"),
    ("aspect ratio that no model takes", encoded(Image.new("RGB", (3000, 2)), "PNG"),
     "invalid_value"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "code"), BAD_FILES, ids=[b[0] for b in BAD_FILES])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_bad_file_is_refused_by_name(
    client: Any, chat: Any, data_url: Any, backend: FakeBackend, name: str, data: bytes, code: str,
    stream: bool,
) -> None:  # fmt: skip
    response = await client.post(CHAT, json=chat("see", data_url(data), stream=stream))
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (FIELD, code)
    assert error["type"] == "invalid_request_error"
    assert backend.requests == []


BAD_URLS = [
    ("", "image_url_refused"),
    ("data:", "invalid_image_url"),
    ("data:,", "invalid_image_url"),
    ("data:image/png,abc", "invalid_image_url"),
    ("data:image/png;base64", "invalid_image_url"),
    ("data:image/png;base64,****", "invalid_base64"),
    ("data:image/png;base64,abc", "invalid_base64"),
    ("data:image/png;base64,YWJj\n", "invalid_base64"),
    ("data:image/png;base64,YWJj YWJj", "invalid_base64"),
    ("data:image/png;base64,YWI=YWI=", "invalid_base64"),
    ("data:image/png;base64,äöü=", "invalid_base64"),
    ("data:text/html;base64,YWJj", "unsupported_image_type"),
    ("data:video/mp4;base64,YWJj", "unsupported_image_type"),
    ("data:image/png;base64,", "invalid_image"),
    ("iVBORw0KGgo=", "image_url_refused"),
    ("https://example.com/cat.png", "image_url_refused"),
    ("file:///etc/passwd", "image_url_refused"),
    ("ftp://example.com/cat.png", "image_url_refused"),
]


@pytest.mark.parametrize(("url", "code"), BAD_URLS)
@pytest.mark.parametrize("short", [False, True])
async def test_a_bad_url_is_refused_by_name(
    client: Any, chat: Any, url: str, code: str, short: bool
) -> None:
    body = chat("see", url)
    field = FIELD
    if short:  # {"image_url": "..."} in place of {"image_url": {"url": "..."}}
        body["messages"][0]["content"][1]["image_url"] = url
        field = FIELD.removesuffix(".url")
    error = (await client.post(CHAT, json=body)).json()["error"]
    assert (error["param"], error["code"]) == (field, code)


async def test_the_second_picture_is_named_if_it_is_the_bad_one(
    client: Any, chat: Any, data_url: Any
) -> None:
    body = chat("see", data_url(PNG), data_url(PNG[:40]))
    error = (await client.post(CHAT, json=body)).json()["error"]
    assert error["param"] == "messages[0].content[2].image_url.url"


async def test_too_many_pictures_are_refused_undecoded(
    make_client: Any, chat: Any, data_url: Any
) -> None:
    client = make_client(max_images=2)
    body = chat("see", data_url(PNG), data_url(PNG), "data:broken")
    error = (await client.post(CHAT, json=body)).json()["error"]
    assert error["code"] == "too_many_images"
    assert error["param"] == "messages[0].content[3].image_url.url"


async def test_a_file_beyond_the_limit_is_refused(
    make_client: Any, chat: Any, data_url: Any
) -> None:
    client = make_client(max_media_bytes=len(PNG) - 1)
    error = (await client.post(CHAT, json=chat("see", data_url(PNG)))).json()["error"]
    assert error["code"] == "image_too_large"
    client = make_client(max_media_bytes=len(PNG))
    assert (await client.post(CHAT, json=chat("see", data_url(PNG)))).status_code == 200


async def test_a_text_model_refuses_pictures(make_client: Any, chat: Any, data_url: Any) -> None:
    renderer = FakeRenderer()
    renderer.supports_images = False
    client = make_client(renderer=renderer)
    error = (await client.post(CHAT, json=chat("see", data_url(PNG)))).json()["error"]
    assert (error["param"], error["code"]) == (FIELD, "unsupported_content_type")


@pytest.mark.parametrize(
    ("format", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "L"), ("PNG", "1"), ("PNG", "P"), ("PNG", "I;16"),
     ("PNG", "LA"), ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("WEBP", "RGB"),
     ("WEBP", "RGBA"), ("GIF", "P"), ("BMP", "RGB")],
)  # fmt: skip
async def test_files_of_every_kind_are_taken_whatever_type_is_declared(
    client: Any, chat: Any, data_url: Any, format: str, mode: str
) -> None:
    url = data_url(encoded(Image.new(mode, (40, 30)), format), "image/jpeg")
    assert (await client.post(CHAT, json=chat("see", url))).status_code == 200


async def test_a_data_url_needs_no_type(client: Any, chat: Any, data_url: Any) -> None:
    for declared in ("", "application/octet-stream", "image/x-anything;name=a", "IMAGE/PNG"):
        response = await client.post(CHAT, json=chat("see", data_url(PNG, declared)))
        assert response.status_code == 200, response.text


LIMITS = ImageLimits(max_pixels=10_000, max_side_px=1000)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_a_content_key_knows_pixels_not_files(
    size: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    image = Image.new("RGB", size, colour)
    image.putpixel((0, 0), (1, 2, 3))
    files = [
        encoded(image, "PNG"),
        encoded(image, "PNG", compress_level=0),
        encoded(image, "BMP"),
        encoded(image, "WEBP", lossless=True),
    ]
    keys = {content_key(decode_image(file, field="x", limits=LIMITS)) for file in files}
    assert keys == {content_key(image)}
    other = image.copy()
    other.putpixel((0, 0), (1, 2, 4))
    assert content_key(other) not in keys


def test_pixels_in_another_shape_have_another_key() -> None:
    flat = bytes(range(36))
    keys = {content_key(Image.frombytes("RGB", size, flat)) for size in ((3, 4), (4, 3), (12, 1))}
    assert len(keys) == 3


def test_a_photo_taken_sideways_is_turned() -> None:
    image = Image.new("RGB", (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode_image(encoded(image, "JPEG", exif=exif), field="x", limits=LIMITS)
    assert turned.size == (20, 40)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_never_crash(data: bytes) -> None:
    for prefix in (b"", PNG[:30], JPEG[:30], b"GIF89a", b"RIFF\x20\0\0\0WEBPVP8 ", b"BM"):
        error = None
        try:
            decode_image(prefix + data, field="x", limits=LIMITS)
        except ApiError as caught:
            error = caught
        assert error is None or (error.status, error.param) == (400, "x")


@given(st.binary(max_size=100))
def test_data_urls_give_back_what_went_in(data: bytes) -> None:
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    assert data_url_bytes(url, field="x", max_bytes=100) == data
