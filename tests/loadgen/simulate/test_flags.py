"""The command line refuses what it cannot use by name; every policy it names serves."""

import json
from pathlib import Path

import pytest

from epidote_loadgen.simulate.cli import main
from epidote_loadgen.simulate.named_policies import POLICIES
from epidote_loadgen.simulate.profiles import FOLDER, parse_profile


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--trace", "nonsense:nowhere"], "FORMAT:PATH"),
        (["--rps", "0"], "--rps: want a number from 0.001"),
        (["--rps", "nan"], "--rps"),
        (["--duration", "inf"], "--duration: want seconds"),
        (["--tick", "0"], "--tick"),
        (["--images", "-1"], "--images: want a whole number from 0"),
        (["--initial", "4,5"], "want encode,prefill,decode"),
        (["--html", "/no/such/folder/run.html"], "no folder"),
        (["--rps", "0.001", "--duration", "1"], "no request arrives"),
    ],
)
def test_wrong_flag_is_refused_by_name_before_anything_runs(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as wrong:
        main(flags)
    assert wrong.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"encode": None}, "no encode"),
        ({"startup_s": -1.0}, "startup_s: want a number >= 0"),
        ({"prefill": {"per_token_s": "fast"}}, "prefill.per_token_s: want a number"),
        ({"decode": [1.0]}, "decode: want an object"),
        ({"decode": {}}, "decode.base_s: want a number, got nothing"),
        ({"prefill": {"per_token_s": 1e-4, "max_tokens": 0}}, "prefill.max_tokens: want a whole"),
        ({"prefill": {"per_token_s": float("nan")}}, "prefill.per_token_s: want a number"),
        ({"encode": {"per_image_s": -0.1}}, "encode.per_image_s: want a number >= 0"),
        ({"encode": {"per_page_s": 0.1}}, "encode.per_page_s: no such field"),
        ({"encode": {"max_images": 1.5}}, "encode.max_images: want a whole number"),
        ({"name": 7}, "name: want a text"),
        ({"colour": 1.0}, "colour: no such field"),
    ],
)
def test_broken_profile_is_refused_by_its_field(change: dict[str, object], told: str) -> None:
    source = FOLDER / "internvl2-26b-a100.json"
    data = json.loads(source.read_text(encoding="utf-8")) | change
    data = {key: value for key, value in data.items() if value is not None}
    with pytest.raises(ValueError, match=told):
        parse_profile(data)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_of_the_command_line_serves_a_light_load(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--rps", "1", "--duration", "120", "--policy", name, "--initial", "3,4,1"]
    assert main([*flags, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["num_requests"] > 60
    assert shown["num_lost"] == 0


def test_page_shows_a_miss_over_the_line_of_the_slo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "run.html"
    flags = ["--rps", "6", "--duration", "120", "--policy", "static", "--initial", "1,1,1"]
    assert main([*flags, "--json", "--html", str(page)]) == 1
    moments = json.loads(capsys.readouterr().out)["moments"]
    assert max(moment["ttft_over_slo"] for moment in moments) > 1.0
    text = page.read_text(encoding="utf-8")
    assert "Latency over its limit" in text
    assert "stroke-dasharray" in text
    assert ",0.0" in text  # the line reaches the top of its chart


@pytest.mark.parametrize("text", ["[]", "7", '{"name": "x"}', "{", '{"encode": NaN}'])
def test_file_that_is_no_profile_is_refused_and_not_traced_back(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as wrong:
        main(["--profile", str(path)])
    assert wrong.value.code == 2
    assert f"--profile {path}: " in capsys.readouterr().err


def test_run_without_a_good_request_prints_json_without_infinity(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--rps", "1", "--duration", "60", "--policy", "static", "--ttft", "0.001"]
    assert main([*flags, "--json"]) == 1
    shown = json.loads(capsys.readouterr().out, parse_constant=_refuse)
    assert shown["num_good"] == 0
    assert shown["gpu_seconds_per_good"] is None
    assert main(flags) == 1
    assert "no request was good" in capsys.readouterr().out


def _refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")
