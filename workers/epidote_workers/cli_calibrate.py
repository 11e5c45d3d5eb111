"""This file is about the command that chooses the cache's thresholds from labelled questions."""

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from epidote_core.errors import EpidoteError, InvalidRequest
from epidote_gateway.cache.policy import DEFAULT_CATEGORY, CachePolicy, Guard
from epidote_gateway.cache.policy_file import read_policy
from epidote_workers.cli_fleet import Json, fail


class Kind(StrEnum):
    DISCRIMINANTS = "discriminants"
    PRINCIPAL = "principal"


def calibrate(
    data: Annotated[
        Path, typer.Argument(help="Labelled questions or pairs: JSON lines, or CLINC.")
    ],
    categories: Annotated[
        Path | None, typer.Option(help='JSON file: {"category": ["answer", …]}.')
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Of CLINC's form: splits to use.")] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy to start from.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the policy; else stdout.")
    ] = None,
    precision: Annotated[float, typer.Option(min=0.5, max=0.9999)] = 0.95,
    outside: Annotated[
        float, typer.Option(min=0.0001, max=0.5, help="Share of out-of-scope questions served.")
    ] = 0.01,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999)] = 0.95,
    guards: Annotated[bool, typer.Option(help="Judge with the policy's guards.")] = True,
    guard: Annotated[
        list[Guard] | None, typer.Option(help="Only with these; written to every category.")
    ] = None,
    projection: Annotated[
        Path | None, typer.Option(help="Write a projection here, use it.")
    ] = None,
    kind: Annotated[Kind, typer.Option(help="What the projection is.")] = Kind.DISCRIMINANTS,
    dimensions: Annotated[int, typer.Option(min=1, help="Of the projection.")] = 128,
    exemplars: Annotated[int, typer.Option(min=0, max=1024, help="Most per category.")] = 150,
    search_ms: Annotated[float, typer.Option(min=0, help="Cost of looking up.")] = 10.0,
    fetch_ms: Annotated[float, typer.Option(min=0, help="Cost of fetching an answer.")] = 5.0,
    answer_ms: Annotated[
        list[str] | None,
        typer.Option(help="Time of the model's answer: 900, or per category: faq=900."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split into halves.")] = 0,
    as_json: Json = False,
) -> None:
    """Choose thresholds per category, from labelled questions, for a wanted precision.

    Example: epidote cache calibrate clinc.json --categories domains.json --split train --no-guards
    --out policy.yaml
    """
    from epidote_gateway.cache.meaning.calibration import Wanted

    try:
        for option, path in (("--out", out), ("--projection", projection)):
            if path is not None and not path.resolve().parent.is_dir():
                raise InvalidRequest(f"{option}: there is no directory {path.resolve().parent}")
        wanted = Wanted(
            precision=precision,
            outside_share=outside,
            confidence=confidence,
            projection=kind.value if projection else "",
            dimensions=dimensions,
            exemplars=exemplars,
            search_s=search_ms / 1e3,
            fetch_s=fetch_ms / 1e3,
            answer_s=answer_times(answer_ms or ()),
            guards=tuple(guard or Guard) if guards else (),
        )
        base = read_policy(policy) if policy else CachePolicy()
        found = _calibrated(data, categories, split or (), base, wanted, seed)
        if projection is not None and found.projection is not None:
            found.projection.save(projection)
    except (EpidoteError, ValueError, OSError) as error:
        fail(error if isinstance(error, InvalidRequest) else InvalidRequest(str(error)))
    import yaml  # of the extra `cache`

    spec = found.policy(base, projection_path=str(projection or ""))
    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=100)
    if out is not None:
        out.write_text(f"# precision {precision}, confidence {confidence}, seed {seed}\n{text}")
    elif not as_json:
        typer.echo(text)
    if as_json:
        typer.echo(json.dumps(report(found)))
    else:
        _tell(found, out)


def answer_times(given: Sequence[str]) -> dict[str, float]:
    """Seconds by category from `faq=900` or `900`, in milliseconds.

    Raises:
        InvalidRequest.
    """
    found = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            found[name or DEFAULT_CATEGORY] = float(number) / 1e3
        except ValueError as error:
            raise InvalidRequest(
                f"--answer-ms: wanted a number or category=number, got {text!r}"
            ) from error
    return found


def report(found: Any) -> dict[str, Any]:
    """JSON: what was reached in calibration, per category. Not what a test would measure."""
    return {
        "floor": found.floor,
        "is_sure_outside": found.is_sure_outside,
        "categories": {
            name: {
                "threshold": threshold.value,
                "precision": threshold.precision,
                "hit_ratio": threshold.hit_ratio,
                "num_hits": threshold.num_hits,
                "num_asked": threshold.num_asked,
                "break_even_hit_ratio": found.wanted.break_even(name),
            }
            for name, threshold in found.thresholds.items()
        },
    }


def _calibrated(
    data: Path,
    categories: Path | None,
    splits: Sequence[str],
    base: CachePolicy,
    wanted: Any,
    seed: int,
) -> Any:
    from epidote_gateway.cache.meaning.calibration import calibrate as choose
    from epidote_gateway.cache.meaning.calibration import calibrate_pairs
    from epidote_gateway.cache.meaning.guards.word_guards import WordGuards
    from epidote_gateway.cache.meaning.labelled_questions import read_labelled
    from epidote_gateway.cache.meaning.sentence_meaning import load_embedder

    labelled = read_labelled(data, categories=categories, splits=splits)
    embedder = load_embedder(base.embedder.model_copy(update={"projection": ""}))
    guards = WordGuards(base.guards, wanted.guards) if wanted.guards else None
    texts = [question.text for question in labelled.questions]
    texts += [pair.asked for pair in labelled.pairs] + [pair.cached for pair in labelled.pairs]
    typer.echo(f"seed {seed}; embedding {len(texts)} texts", err=True)
    vectors = embedder.embed_now(texts)
    if labelled.pairs and labelled.questions:
        raise InvalidRequest(f"{data}: wanted questions or pairs, got both")
    if labelled.pairs:
        if wanted.projection:
            raise InvalidRequest("--projection: must be left out with pairs, they have no answers")
        asked, cached = vectors[: len(labelled.pairs)], vectors[len(labelled.pairs) :]
        return calibrate_pairs(labelled.pairs, asked, cached, wanted=wanted, guards=guards)
    return choose(
        labelled.questions,
        vectors,
        wanted=wanted,
        guards=guards,
        model=embedder.name,
        seed=seed,
        classifier=base.classifier,
        precision=base.embedder.precision,
    )


def _tell(found: Any, out: Path | None) -> None:
    """A line a category, for people, on stderr."""
    typer.echo(f"{'category':24} threshold  hits   precision  worthwhile", err=True)
    for name, threshold in found.thresholds.items():
        if threshold.value is None:
            typer.echo(f"{name:24} none is precise enough: exact matches only", err=True)
            continue
        worth = "yes" if threshold.hit_ratio >= found.wanted.break_even(name) else "explored only"
        typer.echo(
            f"{name:24} {threshold.value:9.4f}  {threshold.hit_ratio:5.1%}  "
            f"{threshold.precision:9.1%}  {worth}",
            err=True,
        )
    if found.num_outside and not found.is_sure_outside:
        typer.echo(
            f"{found.num_outside} out-of-scope questions are too few to be sure of that share:"
            " the floor is above all of them",
            err=True,
        )
    if out is not None:
        print(f"wrote {out}", file=sys.stderr)
