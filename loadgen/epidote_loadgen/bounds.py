"""This file is about how much one request or plan may ask for: more is a slip of the hand, and
would fill this machine's memory before anything was sent."""

MOST_TOKENS = 10_000_000  # of one prompt or reply
MOST_IMAGES = 10_000  # of one request; Azure's trace of 2025 has up to 9,400
MOST_IMAGE_TOKENS = 65_536  # of one picture; Qwen2-VL's own limit is 16,384
MOST_PIXELS = 100_000_000  # of one picture: 300 MB while it is drawn
MOST_POOL = 1_000_000  # different things in a pool that requests draw from
MOST_PREFIX_TOKENS = 100_000_000  # of all prefixes of a class that are kept
MOST_RPS = 1_000_000.0
MOST_USERS = 100_000
