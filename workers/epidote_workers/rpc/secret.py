"""This file is about proving, over tcp, that both ends know one secret, without sending it.

The server's first frame is a nonce, the client's answer its HMAC. Unix sockets need none of it:
they lie in a directory that only their user may enter. The traffic itself is not encrypted.
"""

import hmac
import os
from collections.abc import Mapping
from hashlib import sha256

SECRET_VARIABLE = "EPIDOTE_RPC_SECRET"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"  # shared by all of a cluster anyway


def secret_from(environment: Mapping[str, str] = os.environ) -> bytes | None:
    """The fleet's secret, its own or one made of Ray's token.

    None: neither is set, tcp connections are not checked.
    """
    if secret := environment.get(SECRET_VARIABLE, ""):
        return secret.encode()
    token = environment.get(TOKEN_VARIABLE, "")
    return hmac.digest(token.encode(), b"epidote-rpc-secret", sha256) if token else None


def new_nonce() -> bytes:
    return os.urandom(32)


def proof(secret: bytes, nonce: bytes) -> bytes:
    return hmac.digest(secret, b"epidote-rpc" + nonce, sha256)


def is_proof(secret: bytes, nonce: bytes, answer: bytes) -> bool:
    """Whether `answer` proves the secret; takes the same time for every wrong answer."""
    return hmac.compare_digest(proof(secret, nonce), answer)
