"""This file is about chat templates: Jinja files that come with a model, hence not to be trusted.

They run in Jinja's immutable sandbox and see plain data only. The environment is the one that
transformers documents for `apply_chat_template` (its "chat templates" guide), so that a model's
template renders the same text here.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from epidote_core.errors import InvalidRequest
from epidote_engine.model_files import InvalidModel, read_json


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks text for training; serving prints it as is."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_print"), [], [], body).set_lineno(line)

    @staticmethod
    def _print(caller: Any) -> str:
        return str(caller())


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    # Jinja's own filter escapes for HTML
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise, strftime_now=_now)
    return environment


class ChatTemplate:
    """A model's chat template, or several by name. Safe to render from several threads."""

    def __init__(self, directory: Path, specials: Mapping[str, str]) -> None:
        """Compile what the directory holds: chat_template.jinja, or a field of older files.

        Raises:
            InvalidModel: a template's syntax is wrong.
        """
        environment = _environment()
        try:
            self._templates = {
                name: environment.from_string(source)
                for name, source in _sources(directory).items()
            }
        except jinja2.TemplateError as error:
            raise InvalidModel(f"{directory}: chat template does not compile: {error}") from error
        self._specials = dict(specials)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The conversation as the model's prompt. `variables` are the template's own switches.

        Raises:
            InvalidRequest: there is no template, or it refuses the messages.
        """
        template = self._templates.get("tool_use") if tools else None
        template = template or self._templates.get("default")
        if template is None:
            raise InvalidRequest("messages: this model has no chat template", "messages")
        try:
            return template.render(
                **{
                    **self._specials,
                    **variables,
                    "messages": messages,
                    "tools": tools,
                    "documents": None,
                    "add_generation_prompt": add_generation_prompt,
                }
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, OverflowError) as error:
            # a template indexes and concatenates what the client sent, so its errors are theirs
            raise InvalidRequest(
                f"messages: the model's chat template refuses them: {error}", "messages"
            ) from error


def _sources(directory: Path) -> dict[str, str]:
    """Template name → Jinja source; {} if the model has none."""
    found: dict[str, str] = {}
    written = read_json(directory, "tokenizer_config.json").get("chat_template")
    if isinstance(written, str):
        found["default"] = written
    elif isinstance(written, list):
        found.update({item["name"]: item["template"] for item in written})
    if isinstance(old := read_json(directory, "chat_template.json").get("chat_template"), str):
        found["default"] = old
    for path in (directory / "additional_chat_templates").glob("*.jinja"):
        found[path.stem] = path.read_text(encoding="utf-8")
    if (path := directory / "chat_template.jinja").is_file():
        found["default"] = path.read_text(encoding="utf-8")
    return found
