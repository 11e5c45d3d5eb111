"""This file is about writing the chart's dashboards and rules:
`python -m epidote_operator.monitoring.write_monitoring [CHART]`."""

import json
import sys
from pathlib import Path

import yaml

from epidote_operator.monitoring.alerts import rules
from epidote_operator.monitoring.cache_dashboard import cache
from epidote_operator.monitoring.fleet_dashboard import fleet
from epidote_operator.monitoring.promise_dashboard import promise

DASHBOARDS = {"promise": promise, "fleet": fleet, "cache": cache}


def rendered() -> dict[str, str]:
    """Path inside the chart → text."""
    files = {
        f"dashboards/{name}.json": json.dumps(build(), indent=1) + "\n"
        for name, build in DASHBOARDS.items()
    }
    files["files/rules.yaml"] = yaml.safe_dump(rules(), sort_keys=False, width=1000)
    return files


def main(chart: Path) -> None:
    """Write every file."""
    for name, text in rendered().items():
        (chart / name).parent.mkdir(parents=True, exist_ok=True)
        (chart / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "charts/epidote"))
