"""This file is about the way of a request's pictures: URL, bytes, pixels, the model's grid.

Bytes come from the request or, if allowed, from the network; everything that takes time
runs in a few threads, never on the event loop.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import blake2b

from epidote_core.errors import InvalidRequest
from epidote_core.generation import MediaPixels
from epidote_gateway.address_policy import AddressPolicy
from epidote_gateway.api_errors import bad_field, bad_field_of
from epidote_gateway.backend import PromptRenderer
from epidote_gateway.data_url import data_url_bytes, is_data_url
from epidote_gateway.image_decoding import ImageLimits, content_key, decode_image
from epidote_gateway.pixel_turns import PixelTurns
from epidote_gateway.settings import GatewaySettings
from epidote_gateway.url_fetching import UrlFetcher


class PreparedCache:
    """Prepared pictures by the digest of their files, least recently used out first.

    A chat resends its pictures with every turn; this saves decoding and resizing them again.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._items: OrderedDict[bytes, MediaPixels] = OrderedDict()

    def get(self, digest: bytes) -> MediaPixels | None:
        if digest in self._items:
            self._items.move_to_end(digest)
        return self._items.get(digest)

    def put(self, digest: bytes, pixels: MediaPixels) -> None:
        if digest in self._items or len(pixels.data) > self._max_bytes:
            return
        self._items[digest] = pixels
        self._num_bytes += len(pixels.data)
        while self._num_bytes > self._max_bytes:
            _, evicted = self._items.popitem(last=False)
            self._num_bytes -= len(evicted.data)


class MediaLoader:
    """Loads the images of requests. Close it with the app."""

    def __init__(self, renderer: PromptRenderer, settings: GatewaySettings) -> None:
        self._renderer = renderer
        self._settings = settings
        self._limits = ImageLimits(
            max_pixels=settings.max_image_pixels, max_side_px=settings.max_image_side_px
        )
        self._cache = PreparedCache(settings.media_cache_bytes)
        self._turns = PixelTurns(settings.max_decoding_pixels)
        self._threads = ThreadPoolExecutor(settings.media_threads, thread_name_prefix="media")
        self._fetcher: UrlFetcher | None = None
        if settings.fetch_urls:
            self._fetcher = UrlFetcher(
                AddressPolicy(
                    domains=settings.fetch_domains, private_hosts=settings.fetch_private_hosts
                ),
                timeout_s=settings.fetch_timeout_s,
                max_redirects=settings.fetch_max_redirects,
                max_bytes=settings.max_media_bytes,
            )

    async def load(self, urls: Sequence[tuple[str, str]]) -> list[MediaPixels]:
        """The pictures of (field path, URL) pairs, in order; the first error of any is raised."""
        if not urls:
            return []
        if not self._renderer.supports_images:
            raise bad_field(
                urls[0][0], "this model takes no images", code="unsupported_content_type"
            )
        if len(urls) > self._settings.max_images:
            raise bad_field(
                urls[self._settings.max_images][0],
                f"at most {self._settings.max_images} images per request, got {len(urls)}",
                code="too_many_images",
            )
        # The threads' queue is first come, first served, and a request is in it with no more
        # pictures than there are threads: others wait for one picture of each, not for all.
        lanes = asyncio.Semaphore(self._settings.media_threads)
        tasks = [asyncio.ensure_future(self._load(field, url, lanes)) for field, url in urls]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _load(self, field: str, url: str, lanes: asyncio.Semaphore) -> MediaPixels:
        loop = asyncio.get_running_loop()
        if is_data_url(url):
            async with lanes:
                return await loop.run_in_executor(self._threads, self._from_data_url, field, url)
        if self._fetcher is None:
            raise bad_field(
                field,
                "this server fetches no URLs; send the image as a data URL",
                code="image_url_refused",
            )
        data = await self._fetcher.fetch(url, field=field)
        async with lanes:
            return await loop.run_in_executor(self._threads, self._prepare, field, data)

    def _from_data_url(self, field: str, url: str) -> MediaPixels:
        data = data_url_bytes(url, field=field, max_bytes=self._settings.max_media_bytes)
        return self._prepare(field, data)

    def _prepare(self, field: str, data: bytes) -> MediaPixels:
        digest = blake2b(data, digest_size=32).digest()
        cached = self._cache.get(digest)
        if cached is not None:
            return cached
        with ExitStack() as stack:

            def wait_for_room(num_pixels: int) -> None:
                stack.enter_context(self._turns.of(num_pixels))

            image = decode_image(
                data, field=field, limits=self._limits, before_pixels=wait_for_room
            )
            try:
                pixels = self._renderer.prepare_image(image, content_key(image))
            except InvalidRequest as error:
                raise bad_field_of(error, field) from error
            finally:
                image.close()
        self._cache.put(digest, pixels)
        return pixels

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._fetcher is not None:
            await self._fetcher.aclose()
