# ruff: noqa: INP001  # a script, on purpose in no package
"""Pictures with questions whose answers are known, as lines of JSON: what the cluster demo asks.

    python workers/demo/pictures.py COUNT [SEED]

Each line has `picture` (a PNG in base64), `question` and `answer`. Not part of a package: the
operator's demo, which may not import the load generator, reads it as a program's output.
"""

import base64
import json
import sys
from random import Random

from epidote_loadgen.pictures import ImageFormat, draw, encode, sample_scene
from epidote_loadgen.questions import QuestionType, ask

KINDS = (QuestionType.COUNT, QuestionType.COLOUR_AT)


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    rng, made = Random(seed), 0
    while made < count:
        scene = sample_scene(rng, min_items=2, max_items=4)
        question = ask(KINDS[made % len(KINDS)], [scene], rng)
        if question is None:  # nothing to ask without doubt
            continue
        made += 1
        picture = base64.b64encode(encode(draw(scene), ImageFormat.PNG)).decode()
        line = {"picture": picture, "question": question.text, "answer": question.answer}
        print(json.dumps(line), flush=made == 1)


if __name__ == "__main__":
    main()
