"""Generated resources are what they claim to be, before a real API server is asked about them."""

import pytest

from epidote_loadgen.config.run_file import RunFile
from epidote_operator.spec.admission import rule_on
from epidote_operator.testing.generated_load_tests import LOAD_TEST_SERVER_FAULTS
from epidote_operator.testing.generated_resources import ALL_FAULTS, KINDS, Generated, resource
from epidote_operator.testing.service_faults import SERVER_FAULTS

FOR_THE_SERVER = (*SERVER_FAULTS, *LOAD_TEST_SERVER_FAULTS)
MANY = [resource(number, "ns") for number in range(1000)]


def refused(item: Generated) -> list[str]:
    ruling = rule_on(item.plural, item.name, item.manifest["spec"])
    return [problem.path for problem in ruling.problems]


def test_half_of_them_are_good_and_of_every_kind() -> None:
    good = [item for item in MANY if item.fault is None]
    assert len(good) == len(MANY) // 2
    assert {item.kind for item in good} == set(KINDS)
    assert [item.name for item in good if refused(item)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_is_made_and_named_unless_the_server_alone_can_tell(kind: str) -> None:
    spoilt = [item for item in MANY if item.fault is not None and item.kind == kind]
    assert {item.fault for item in spoilt} == set(ALL_FAULTS[kind])
    for item in spoilt:
        assert item.fault is not None
        if item.fault in FOR_THE_SERVER:
            assert refused(item) == []
        else:
            assert item.fault.path in refused(item), item.fault.name


def test_the_load_generator_takes_what_good_load_tests_say() -> None:
    for item in MANY:
        if item.kind == "LoadTest" and item.fault is None:
            config = item.manifest["spec"]["config"]
            RunFile.model_validate({**config, "target": {"url": "http://a"}})


def test_no_service_of_them_runs_anywhere() -> None:
    for item in MANY:
        if item.kind == "MultimodalService" and item.fault is None:
            spec = item.manifest["spec"]
            for part in (spec["pool"], spec["cluster"]["head"], spec["gateway"]):
                assert part["template"]["spec"]["nodeSelector"]
