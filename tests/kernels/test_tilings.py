"""Tables of tilings: what a device's file says, what a damaged one costs, what no file means."""

import json
import pathlib

import pytest
import torch

from epidote_kernels import tilings
from epidote_kernels.tilings import Tiling, file_name, read_table, tiling_for, write_table

CPU = torch.device("cpu")
ONE = Tiling(sizes={"BLOCK_TOKENS": 64, "programs": 3}, num_warps=4, num_stages=5)
RULE = Tiling(sizes={"BLOCK_TOKENS": 16, "programs": 1}, num_warps=4, num_stages=2)


@pytest.fixture(autouse=True)
def forget_tables() -> None:
    tilings.table_of.cache_clear()


def test_a_table_is_read_back_as_it_was_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "some" / "gpu.json"
    write_table(path, {"paged_decode": {"kv16 dim=128": ONE}}, {"device": "GPU"})
    assert read_table(path) == {"paged_decode": {"kv16 dim=128": ONE}}
    assert json.loads(path.read_text())["device"] == "GPU"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no json", "is no table of tilings"),
        ("{}", "tilings"),
        ('{"tilings": []}', "is no table"),
        ('{"tilings": {"k": {"key": {"warps": 4}}}}', "stages: must be a whole number"),
        ('{"tilings": {"k": {"key": {"warps": 4, "stages": 0}}}}', "stages: .* got 0"),
        ('{"tilings": {"k": {"key": {"warps": true, "stages": 1}}}}', "warps: .* got True"),
        ('{"tilings": {"k": {"key": {"B": "64", "warps": 4, "stages": 1}}}}', "B: .* got '64'"),
    ],
)
def test_a_damaged_table_is_refused_by_name(
    content: str, words: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as refused:
        read_table(path)
    assert str(path) in str(refused.value)


def test_an_unknown_device_and_an_unknown_key_go_by_the_rule() -> None:
    assert tiling_for("paged_decode", "kv16 dim=128", RULE, CPU) is RULE
    assert tilings.table_of("Some New GPU") == {}


def test_ones_own_table_comes_before_the_packages(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tilings.FOLDER_VARIABLE, str(tmp_path))
    write_table(tmp_path / file_name("cpu"), {"paged_decode": {"kv16 dim=128": ONE}}, {})
    assert tiling_for("paged_decode", "kv16 dim=128", RULE, CPU) == ONE
    assert tiling_for("paged_decode", "kv16 dim=64", RULE, CPU) is RULE
    assert tiling_for("moe_down", "kv16 dim=128", RULE, CPU) is RULE
    own = read_table(tilings.FOLDER / file_name("NVIDIA H200"))
    assert tilings.table_of("NVIDIA H200") == own


def test_committed_tables_say_what_was_measured_and_when() -> None:
    paths = list(tilings.FOLDER.glob("*.json"))
    assert paths
    for path in paths:
        about = json.loads(path.read_text())
        assert path.name == file_name(about["device"])
        assert read_table(path)
        if about["measured"]:
            assert about["at"]
        else:
            assert "not measured" in about["note"]
