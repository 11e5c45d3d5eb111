"""This file is about writing `crds/*.yaml`: `python -m epidote_operator.spec.write_crds [FOLDER]`.

The chart packs the same files: `charts/epidote/files/crds` is written, too.
"""

import sys
from pathlib import Path

import yaml

from epidote_operator.spec.crds import RESOURCES, crd

NOTE = "# Written by `python -m epidote_operator.spec.write_crds`; change the models instead.\n"


class _Plain(yaml.SafeDumper):
    """Says equal parts twice: an anchor (&id001) is hard on readers, and on tools."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def rendered() -> dict[str, str]:
    """File name → text of every CRD."""
    return {
        f"{item.plural}.yaml": NOTE
        + yaml.dump(crd(item), Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True)
        for item in RESOURCES
    }


def main(folders: list[str]) -> None:
    """Write every CRD into each folder (default: `crds` and the chart's, from the root)."""
    for folder in folders or ["crds", "charts/epidote/files/crds"]:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, text in rendered().items():
            Path(folder, name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
