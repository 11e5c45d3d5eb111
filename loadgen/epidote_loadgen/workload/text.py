"""This file is about text of a given number of tokens, made without a tokenizer.

The commonest English words, each after a space, are one token each in the byte-pair vocabularies
of GPT-2, Llama, Qwen, SmolLM and their kin. So n words are n tokens; a chat template adds a
constant, which a class may name as its `template_tokens`.
"""

from functools import lru_cache
from random import Random

_COMMONEST = """
the of and to in is that it was for on are as with his they at be this from have or by one had
not but what all were when we there can an your which their said if do will each about how up
out them then she many some so these would other into has more her two like him see time could
no make than first been its who now people my made over did down only way find use may water
long little very after words called just where most know get through back much before go good
new write our used me man too any day same right look think also around another came come work
three word must because does part even place well such here take why things help put years
different away again off went old number great tell men say small every found still between name
should home big give air line set own under read last never us left end along while might next
sound below saw something thought both few those always looked show large often together asked
house world going want school important until form food keep children feet land side without boy
once animals life enough took sometimes four head above kind began almost live page got earth
need far hand high year mother light parts country father let night following picture being
study second eyes soon times story boys since white days ever paper hard near sentence better
best across during today others however sure means knew try told young sun thing whole hear
example heard several change answer room sea against top turned learn point city play toward
five using himself usually
"""
WORDS = tuple(_COMMONEST.split())
# Ids that every vocabulary of over 2,100 entries has, past its bytes and special tokens.
TOKEN_IDS = range(600, 2100)


def passage(num_words: int, key: str) -> str:
    """`num_words` words, a function of `key`; every word follows a space, the first too."""
    if num_words <= 0:
        return ""
    return " " + " ".join(Random(key).choices(WORDS, k=num_words))


@lru_cache(maxsize=4096)
def shared_passage(num_words: int, key: str) -> str:
    """`passage`, kept: for prefixes that are asked for again and again."""
    return passage(num_words, key)


def token_ids(num_tokens: int, key: str) -> list[int]:
    """Exactly that many tokens, for servers that take a prompt as ids."""
    return Random(key).choices(TOKEN_IDS, k=num_tokens)


def first_words(text: str, num_words: int) -> str:
    """The text's beginning, as passages are written.

    >>> first_words(" one two three", 2)
    ' one two'
    """
    at = 0
    for _ in range(num_words + 1):
        at = text.find(" ", at) + 1
        if at == 0:
            return text
    return text[: at - 1]
