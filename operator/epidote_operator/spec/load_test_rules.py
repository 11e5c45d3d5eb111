"""This file is about what a LoadTest's schema can't say."""

import json
from typing import Any

from epidote_operator.spec.invalid import NOTHING, Problem, shown
from epidote_operator.spec.load_test import LoadTestSpec
from epidote_operator.spec.load_test_config import config_problems
from epidote_operator.spec.template_rules import metadata_problems
from epidote_operator.spec.template_shape import shape_problems

MADE_FROM_TARGET = ("url", "api_key_env")
MAX_CONFIG_BYTES = 256 << 10  # a ConfigMap takes 1 MiB, etcd 1.5 MiB with everything else


def load_test_problems(spec: LoadTestSpec) -> list[Problem]:
    """Everything that is wrong with a spec whose fields are right one by one."""
    problems = []
    target = spec.target
    if target.service_name is None and target.url is None:
        problems.append(
            Problem(path="spec.target", wanted="must have serviceName or url", found=NOTHING)
        )
    if target.service_name is not None and target.url is not None:
        problems.append(
            Problem(
                path="spec.target.url",
                wanted="must be left out where serviceName is given",
                found=shown(target.url),
            )
        )
    problems += metadata_problems("spec.template.metadata", spec.template)
    problems += shape_problems("spec.template", spec.template)
    problems += _target(spec.config.get("target", {}))
    if spec.image is None:  # another image may hold another version, which knows other sections
        problems += config_problems(spec.config)
    size = len(json.dumps(spec.config).encode())
    if size > MAX_CONFIG_BYTES:
        problems.append(
            Problem(
                path="spec.config",
                wanted=f"must have at most {MAX_CONFIG_BYTES} bytes as JSON",
                found=f"{size}",
            )
        )
    return problems


def _target(given: Any) -> list[Problem]:
    """The configuration may say how to send (model, headers), but not where to, and with no key."""
    if not isinstance(given, dict):
        return [Problem(path="spec.config.target", wanted="must be an object", found=shown(given))]
    return [
        Problem(
            path=f"spec.config.target.{field}",
            wanted="must be left out, spec.target says it",
            found=shown(given[field]),
        )
        for field in MADE_FROM_TARGET
        if field in given
    ]
