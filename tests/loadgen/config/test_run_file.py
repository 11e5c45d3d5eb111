"""A run file becomes a plan, or says by line and field what is wrong with it."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from epidote_core.modality import Modality
from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.arrivals.schedule import OpenLoop
from epidote_loadgen.config.building import build_plan
from epidote_loadgen.config.invalid import InvalidConfig
from epidote_loadgen.config.loading import load
from epidote_loadgen.config.model_discovery import ModelUnknown
from epidote_loadgen.records import RequestAttributes, Slot
from epidote_loadgen.traces.replay import Replay

EXAMPLES = Path(__file__).parents[3] / "loadgen" / "examples"
SMALL: dict[str, Any] = {
    "target": {"url": "http://127.0.0.1:1", "model": "m"},
    "arrivals": {"rate": 5, "duration_s": 10},
    "classes": {"chat": {"kind": "lengths", "prompt_tokens": 5, "output_tokens": 3}},
    "slo": {"all": {"objectives": [{"ttft_ms": 500, "ratio": 0.9}]}},
}
TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n"


def run_file(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def changed(**sections: Any) -> dict[str, Any]:
    return SMALL | sections


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_loads(path: Path, tmp_path: Path) -> None:
    overrides = {}
    if yaml.safe_load(path.read_text())["arrivals"].get("kind") == "trace":
        # The traces themselves are not shipped; any of the format will do.
        trace = tmp_path / "own.jsonl"
        trace.write_text('{"at_s": 43250, "prompt_tokens": 9, "output_tokens": 3}\n')
        overrides = {
            "arrivals.path": str(trace),
            "arrivals.format": "own",
            "arrivals.start_s": 0,
            "arrivals.end_s": 50_000,
        }
    plan = build_plan(load(path, overrides), base=path.parent)
    assert plan.slo.classes
    assert plan.config_digest
    arrivals = plan.arrivals
    slot = arrivals.slot(0, 0) if isinstance(arrivals, ClosedLoop) else next(arrivals.slots())
    assert json.loads(plan.workload.request(slot).body)["stream"] is True
    assert pickle.loads(pickle.dumps(plan)).workload.request(slot) == plan.workload.request(slot)


def test_a_plan_has_what_the_file_says(tmp_path: Path) -> None:
    values = changed(
        seed=9,
        limits={"max_in_flight": 20, "on_cap": "drop", "processes": 2},
        slo={
            "two": {
                "match": {"modality": "image", "min_images": 2, "tenant": ["a", "b"]},
                "objectives": [{"ttft_ms": 1400, "tpot_ms": 40}],
            },
            "rest": {"objectives": [{"e2e_ms": 9000, "correct": True, "ratio": 0.5}]},
        },
    )
    plan = build_plan(load(run_file(tmp_path, values)))
    assert (plan.seed, plan.num_processes, plan.duration_s) == (9, 2, 10.0)
    assert (plan.limits.max_in_flight, str(plan.limits.on_cap)) == (20, "drop")
    two, rest = plan.slo.classes
    assert (two.objectives[0].ttft_s, two.objectives[0].tpot_s, two.objectives[0].ratio) == (
        1.4,
        0.04,
        0.99,
    )
    image = RequestAttributes(modality=Modality.IMAGE, num_images=2, tenant="b")
    assert two.match.holds("chat", image, 0)
    assert not two.match.holds("chat", RequestAttributes(tenant="b"), 0)
    assert rest.objectives[0].correct
    assert isinstance(plan.arrivals, OpenLoop)
    assert plan.arrivals.seed == 9


def test_a_trace_needs_no_class(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TRACE)
    values = changed(arrivals={"kind": "trace", "path": "a.csv", "speed": 60}, classes={})
    plan = build_plan(load(run_file(tmp_path, values)), base=tmp_path)
    assert isinstance(plan.arrivals, Replay)
    [slot] = plan.arrivals.slots()
    made = plan.workload.request(slot)
    assert (made.attributes.prompt_tokens, made.attributes.max_output_tokens) == (374, 44)


def test_a_plan_tells_how_many_rows_of_a_trace_were_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TRACE + "yesterday,1,2\n")
    arrivals = {"kind": "trace", "path": "a.csv", "max_bad_rows": 3}
    plan = build_plan(
        load(run_file(tmp_path, changed(arrivals=arrivals, classes={}))), base=tmp_path
    )
    assert plan.config["trace"]["num_rows"] == 1
    assert plan.config["trace"]["num_bad_rows"] == 1
    assert "line 3: TIMESTAMP" in plan.config["trace"]["bad_rows"][0]


def test_equal_files_have_equal_digests_and_outputs_do_not_count(tmp_path: Path) -> None:
    def digest(values: dict[str, Any]) -> str:
        return build_plan(load(run_file(tmp_path, values))).config_digest

    assert digest(SMALL) == digest(changed(output={"json": "x.json"}, seed=0))
    assert digest(SMALL) != digest(changed(seed=1))


def test_overrides_win_by_dotted_path(tmp_path: Path) -> None:
    path = run_file(tmp_path, SMALL)
    run = load(path, {"target.url": "unix:///tmp/x.sock", "limits.max_in_flight": 4})
    assert run.target.url == "unix:///tmp/x.sock"
    assert run.limits.max_in_flight == 4


def test_keys_come_from_the_environment_and_are_never_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "hush-hush")
    target = SMALL["target"] | {"api_key_env": "MY_KEY", "headers": {"x-other": "also-secret"}}
    plan = build_plan(load(run_file(tmp_path, changed(target=target))))
    assert plan.target.api_key == "hush-hush"
    assert plan.target.headers == (("x-other", "also-secret"),)
    assert "hush-hush" not in repr(plan)
    assert "secret" not in json.dumps(plan.config)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(InvalidConfig, match="MY_KEY is not set"):
        build_plan(load(run_file(tmp_path, changed(target=target))))


LENGTHS = SMALL["classes"]["chat"]
WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"target": {"model": "m"}}, "target.url: is missing"),
    ({"target": {"url": "ftp://x", "model": "m"}}, "target.url: must begin with http://"),
    ({"target": 5}, "target: want a mapping, found 5"),
    ({"target": {"url": "http://x", "model": [1]}}, "target.model: want a text, found a list of 1"),
    (
        {"target": {"url": "http://x", "model": "m", "tenant_header": "x tenant"}},
        "target.tenant_header: want the name of a header, found 'x tenant'",
    ),
    ({"targets": {}}, "targets: no such field"),
    ({"arrivals": {"rate": -1, "duration_s": 1}}, "arrivals.rate: want a number > 0, found -1"),
    (
        {"arrivals": {"rate": 1e9, "duration_s": 1}},
        "rate: want a number <= 1e+06, found 1000000000.0",
    ),
    ({"arrivals": {"rate": 1, "duration_s": "soon"}}, "duration_s: want a number, found 'soon'"),
    ({"arrivals": {"rate": 1}}, "arrivals: want duration_s or num_requests, found neither"),
    ({"arrivals": {"rate": {"file": {"path": "gone.csv"}}, "duration_s": 1}}, "gone.csv"),
    (
        {"arrivals": {"rate": {"constant_rps": 1, "steps": []}, "duration_s": 1}},
        "arrivals.rate.steps",
    ),
    ({"arrivals": {"kind": "sometimes"}}, "arrivals: kind: want open, streams, closed or trace"),
    (
        {"arrivals": {"kind": "closed", "users": 0, "duration_s": 1}},
        "arrivals.users: want a number >= 1, found 0",
    ),
    ({"arrivals": {"kind": "closed", "users": 10**9, "duration_s": 1}}, "users: want a number <="),
    ({"arrivals": {"rate": 1, "duration_s": 1, "spacing": "gamma"}}, "cv belongs to"),
    ({"arrivals": {"kind": "trace", "path": "gone.csv"}, "classes": {}}, "gone.csv"),
    ({"arrivals": {"rate": 1, "duration_s": 1, "classes": {"no": 1}}}, "no class 'no'"),
    ({"classes": {}}, "classes: want at least one"),
    ({"classes": {"chat": {"kind": "trace"}}}, "kind trace wants arrivals of kind trace"),
    ({"classes": {"chat": LENGTHS | {"weight": 0}}}, "all weights are 0"),
    (
        {"classes": {"chat": LENGTHS | {"prompt_tokens": -5}}},
        "classes.chat.prompt_tokens: want a number >= 0, found -5",
    ),
    (
        {"classes": {"chat": LENGTHS | {"prompt_tokens": 10**12}}},
        "classes.chat.prompt_tokens: want a number <= 1e+07, found 1000000000000",
    ),
    (
        {"classes": {"chat": LENGTHS | {"output_tokens": {"uniform": [1, 10**12]}}}},
        "classes.chat.output_tokens.uniform[1]: want a number <= 1e+07",
    ),
    (
        {"classes": {"chat": LENGTHS | {"images": {"count": 10**6}}}},
        "classes.chat.images.count: want at most 10000 pictures in a request, found 1000000",
    ),
    (
        {"classes": {"chat": LENGTHS | {"images": {"resolutions": ["99999x99999"]}}}},
        "classes.chat.images.resolutions: want at most 100000000 pixels, found 99999x99999",
    ),
    (
        {"classes": {"chat": LENGTHS | {"images": {"reuse": {"count": 10**12}}}}},
        "classes.chat.images.reuse.count: want a number <= 1e+06",
    ),
    (
        {"classes": {"chat": LENGTHS | {"prefix": {"count": 10**6, "tokens": 10**6}}}},
        "classes.chat.prefix: count x tokens: want at most 100000000 tokens of prefixes",
    ),
    (
        {"classes": {"chat": LENGTHS | {"prompt_tokens": {"uniform": [9, 2]}}}},
        "classes.chat.prompt_tokens: uniform: want [low, high], found [9, 2]",
    ),
    ({"classes": {"chat": LENGTHS | {"token_ids": True}}}, "only with api completions"),
    ({"classes": {"chat": {"kind": "riddles"}}}, "found 'riddles'"),
    (
        {"classes": {"look": {"kind": "questions", "images": {"count": 7}}}},
        "at most 3 pictures, got 7",
    ),
    (
        {"classes": {"look": {"kind": "questions", "images": {"resolutions": ["2x"]}}}},
        "want sizes like 640x480, found '2x'",
    ),
    (
        {"slo": {"all": {"objectives": [{"ratio": 0.9}]}}},
        "slo.all.objectives[0]: want a limit (ttft_ms, tpot_ms, itl_ms, e2e_ms, correct: true), or "
        "served: true for replies of any speed; found ratio 0.9 alone",
    ),
    ({"slo": {"all": {"objectives": []}}}, "slo.all.objectives: want at least 1 of them"),
    (
        {"slo": {"all": {"objectives": [{"ttft_ms": 5, "ratio": 99}]}}},
        "slo.all.objectives[0].ratio: want a number < 1, found 99",
    ),
    (
        {"slo": {"all": {"match": {"modality": "smell"}, "objectives": [{"ttft_ms": 5}]}}},
        "slo.all.match.modality: want 'text', 'image', 'video' or 'audio', found 'smell'",
    ),
    (
        {"slo": {"all": {"match": {"classes": "no"}, "objectives": [{"ttft_ms": 5}]}}},
        "slo.all.match.classes: no class 'no'; the classes are chat",
    ),
    (
        {
            "slo": {
                "a": {
                    "match": {"min_images": 3, "max_images": 2},
                    "objectives": [{"correct": True}],
                }
            }
        },
        "max_images: must be >= the minimum 3, got 2",
    ),
    ({"watch": {"metrics_url": "http://x", "profile": "gone"}}, "no profile 'gone'"),
    ({"watch": {"interval_s": 5}}, "want metrics_url, prometheus or kubernetes"),
    ({"watch": {"metrics_url": "page"}}, "watch.metrics_url: must begin with http://"),
)


@pytest.mark.parametrize(
    ("arrivals", "where"),
    [({"rate": 5, "duration_s": 1}, "classes.chat.tenants"), ({"kind": "trace"}, "own.jsonl")],
)
def test_a_tenant_that_no_header_can_name_is_refused_before_the_run(
    tmp_path: Path, arrivals: dict[str, Any], where: str
) -> None:
    target = SMALL["target"] | {"tenant_header": "x-tenant"}
    classes = {"chat": LENGTHS | {"tenants": {"東京": 1.0}}}
    if arrivals.get("kind") == "trace":
        trace = tmp_path / "own.jsonl"
        trace.write_text('{"at_s": 1, "prompt_tokens": 9, "output_tokens": 3, "tenant": "東京"}\n')
        arrivals, classes = arrivals | {"path": "own.jsonl"}, {}
    path = run_file(tmp_path, changed(target=target, classes=classes, arrivals=arrivals))
    with pytest.raises(InvalidConfig, match=f"{where}: tenant '東京' can't stand in the header"):
        build_plan(load(path), base=tmp_path)
    without = SMALL["target"]
    assert build_plan(load(path, {"target": without}), base=tmp_path)


@pytest.mark.parametrize(("sections", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_file_is_refused_by_field(
    tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    path = run_file(tmp_path, changed(**sections))
    with pytest.raises(InvalidConfig) as refused:
        build_plan(load(path), base=tmp_path)
    assert message in str(refused.value)


def test_problems_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "target: {url: 'http://x', model: m}\narrivals:\n  rate: 5\n  duration_s: -2\n"
        "classes:\n  c:\n    kind: lengths\n    prompt_tokens: 1\n    output_tokens: 1\n"
        "    colour: red\n"
    )
    with pytest.raises(InvalidConfig) as refused:
        load(path)
    first, second = str(refused.value).splitlines()
    assert first.startswith(f"{path}:4: arrivals.duration_s: ")
    assert second == f"{path}:10: classes.c.colour: no such field"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found nothing"),
        ("- a\n- b\n", "found list"),
        ("a: [1, 2\n", "no YAML"),
        ("seed: 1\nseed: 2\n", "run.yaml:2: 'seed' is given twice"),
        ("seed: !!python/object:os.system {}\n", "no YAML"),
    ],
)
def test_a_file_that_is_no_run_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=message.replace("(", ".")):
        load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="can't be read"):
        load(tmp_path / "gone.yaml")


def test_values_of_headers_are_not_shown_in_a_message(tmp_path: Path) -> None:
    target = SMALL["target"] | {"headers": {"authorization": 12345}}
    with pytest.raises(InvalidConfig) as refused:
        load(run_file(tmp_path, changed(target=target)))
    assert "authorization" in str(refused.value)
    assert "12345" not in str(refused.value)


def test_a_model_left_out_is_asked_for(tmp_path: Path) -> None:
    run = load(run_file(tmp_path, changed(target={"url": "http://127.0.0.1:1"})))
    plan = build_plan(run, ask_model=lambda target: f"model of {target.url}")
    slot = Slot(index=0, intended_send_s=0.0, class_name="chat", item=0)
    assert json.loads(plan.workload.request(slot).body)["model"] == "model of http://127.0.0.1:1"
    assert plan.config["target"]["model"] == "model of http://127.0.0.1:1"
    with pytest.raises(ModelUnknown, match="name it as target"):
        build_plan(run)  # nobody listens there


def test_sessions_take_turns_in_an_open_loop_and_follow_each_other_in_a_closed_one(
    tmp_path: Path,
) -> None:
    classes = {"talk": {"kind": "questions", "images": {"count": 1}, "turns": 2, "sessions": 3}}
    open_plan = build_plan(load(run_file(tmp_path, changed(classes=classes))))
    closed = {"kind": "closed", "users": 2, "duration_s": 5}
    closed_plan = build_plan(load(run_file(tmp_path, changed(classes=classes, arrivals=closed))))

    def session(plan: Any, item: int) -> tuple[str, int]:
        slot = Slot(index=item, intended_send_s=0.0, class_name="talk", item=item)
        attributes = plan.workload.request(slot).attributes
        return attributes.session_id, attributes.turn

    assert [session(open_plan, item) for item in (0, 1, 3)] == [
        ("talk-0", 0),
        ("talk-1", 0),
        ("talk-0", 1),
    ]
    assert [session(closed_plan, item) for item in (0, 1)] == [("talk-0", 0), ("talk-0", 1)]
