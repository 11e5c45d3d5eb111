"""This file is about `helm test`: `python -m epidote_operator.installed URL` inside the cluster.

It asks the operator's probe and says what it answered; exit code 0 if it is well.
"""

import sys
import time

import httpx

PATIENCE_S = 60.0  # a Service needs a moment after its pod is ready


def check(url: str, *, patience_s: float = PATIENCE_S, pause_s: float = 1.0) -> str:
    """The probe's answer, asked until it is well.

    Raises:
        TimeoutError: with the last answer.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            answer = httpx.get(url, timeout=5.0, trust_env=False)
            if answer.is_success:
                return f"{url}: {answer.status_code}"
            told = f"{answer.status_code} {answer.text[:200]}"
        except httpx.HTTPError as error:
            told = repr(error)
        if time.monotonic() >= deadline_s:
            raise TimeoutError(f"{url}: not well within {patience_s:g} s; the last answer: {told}")
        time.sleep(pause_s)


if __name__ == "__main__":
    try:
        print(check(sys.argv[1]))
    except TimeoutError as error:
        sys.exit(str(error))
