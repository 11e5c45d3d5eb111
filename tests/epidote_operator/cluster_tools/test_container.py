"""Pods as processes: no volume of theirs covers the programs that they are to run."""

import sys
from pathlib import Path

from epidote_operator.testing.node import container
from epidote_operator.testing.node.container import hides_programs


def test_a_volume_over_an_images_programs_is_left_out() -> None:
    images = ["/tmp/programs/worker", "/var/tmp/other"]
    assert hides_programs("/tmp", images)
    assert hides_programs("/tmp/programs", images)
    assert not hides_programs("/tmp/scratch", images)
    assert not hides_programs("/dev/shm", images)


def test_a_volume_over_our_own_files_is_left_out() -> None:
    assert hides_programs(sys.prefix, [])
    assert hides_programs(str(Path(container.__file__).resolve().parent), [])
    assert not hides_programs("/home/epidote", [])
