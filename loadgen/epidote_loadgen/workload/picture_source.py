"""This file is about the pictures a class of requests sends: which ones, how often again."""

import base64
from collections import OrderedDict
from dataclasses import dataclass, field
from random import Random

from epidote_loadgen.pictures import ImageFormat, Scene, draw, encode, sample_scene
from epidote_loadgen.workload.resolution import ResolutionMix, SizePx
from epidote_loadgen.workload.zipf import Zipf

CACHE_BYTES = 256 << 20  # of data URLs, per process; a pool that fits is drawn once


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture of known content. Equal ids are equal bytes."""

    image_id: str
    scene: Scene
    data_url: str = field(repr=False)


class KeptPictures:
    """The pictures used last, up to `CACHE_BYTES`."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[str, Picture] = OrderedDict()
        self._num_bytes = 0

    def get(self, key: str) -> Picture | None:
        found = self._pictures.get(key)
        if found is not None:
            self._pictures.move_to_end(key)
        return found

    def put(self, key: str, picture: Picture) -> None:
        self._pictures[key] = picture
        self._num_bytes += len(picture.data_url)
        while self._num_bytes > CACHE_BYTES:
            _, dropped = self._pictures.popitem(last=False)
            self._num_bytes -= len(dropped.data_url)


@dataclass(frozen=True, kw_only=True)
class PictureSource:
    """Pictures as a function of (seed, id). `reuse` draws ids from a pool; None: all are new."""

    seed: int
    name: str
    resolutions: ResolutionMix = field(default_factory=lambda: ResolutionMix({}))
    image_format: ImageFormat = ImageFormat.PNG
    quality: int = 90
    max_items: int = 6
    reuse: Zipf | None = None
    _kept: KeptPictures = field(default_factory=KeptPictures, repr=False, compare=False)

    def draw_ids(self, count: int, item: int, rng: Random) -> list[str]:
        """Ids of one request's pictures, no two alike where the pool allows. Mutates `rng`."""
        if self.reuse is None:
            return [f"{self.name}-{item}-{place}" for place in range(count)]
        found: list[str] = []
        while len(found) < count:
            name = f"{self.name}-{self.reuse.sample(rng)}"
            if name not in found or len(set(found)) == self.reuse.count:
                found.append(name)
        return found

    def scene(self, image_id: str, size_px: SizePx | None = None) -> Scene:
        """What the picture shows, without drawing it."""
        rng = Random(f"{self.seed}/picture/{image_id}")
        size_px = size_px or self.resolutions.sample(rng)
        return sample_scene(rng, max_items=self.max_items, size_px=size_px)

    def picture(self, image_id: str, size_px: SizePx | None = None) -> Picture:
        """The picture, drawn and encoded; kept for the next time where it is drawn from a pool."""
        key = f"{image_id} {size_px}"
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        scene = self.scene(image_id, size_px)
        data = encode(draw(scene), self.image_format, quality=self.quality)
        text = base64.b64encode(data).decode("ascii")
        made = Picture(
            image_id=image_id,
            scene=scene,
            data_url=f"data:{self.image_format.media_type};base64,{text}",
        )
        if self.reuse is not None:
            self._kept.put(key, made)
        return made
