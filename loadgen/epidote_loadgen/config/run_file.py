"""This file is about a whole run file: its sections, and what must fit together across them."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from epidote_loadgen.config.arrivals_section import ArrivalsSection, StreamsSection, TraceSection
from epidote_loadgen.config.class_section import ClassSection, TraceClassSection
from epidote_loadgen.config.section import NUMBER, Section
from epidote_loadgen.config.slo_section import SloClassSection
from epidote_loadgen.config.target_section import LimitsSection, TargetSection
from epidote_loadgen.config.watch_section import WatchSection


class OutputSection(Section):
    """Files to write after the run; paths are relative to where the command runs."""

    json_: Annotated[Path | None, Field(alias="json")] = None
    csv: Path | None = None
    parquet: Path | None = None
    junit: Path | None = None
    html: Path | None = None


class RunFile(Section):
    """Everything a run is told. Classes and promises keep the file's order."""

    seed: Annotated[int, Field(ge=0), NUMBER] = 0
    confidence: Annotated[float, Field(gt=0.5, lt=1.0), NUMBER] = 0.95
    target: TargetSection
    arrivals: ArrivalsSection
    classes: dict[str, ClassSection] = Field(default_factory=dict)
    slo: dict[str, SloClassSection] = Field(default_factory=dict)
    limits: LimitsSection = LimitsSection()
    watch: WatchSection | None = None
    output: OutputSection = OutputSection()

    @model_validator(mode="before")
    @classmethod
    def _a_trace_needs_no_class(cls, value: object) -> object:
        if isinstance(value, dict) and not value.get("classes"):
            arrivals = value.get("arrivals")
            if isinstance(arrivals, dict) and arrivals.get("kind") == "trace":
                return {**value, "classes": {"trace": {"kind": "trace"}}}
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        is_trace = isinstance(self.arrivals, TraceSection)
        if is_trace and len(self.classes) != 1:
            raise ValueError(f"classes: a trace has one class, found {len(self.classes)}")
        if not self.classes:
            raise ValueError("classes: want at least one, found none")
        for name, section in self.classes.items():
            if isinstance(section, TraceClassSection) and not is_trace:
                raise ValueError(f"classes.{name}: kind trace wants arrivals of kind trace")
        if not is_trace and not any(section.weight for section in self.classes.values()):
            raise ValueError("classes: all weights are 0")
        for path, name in self._named_classes():
            if name not in self.classes:
                known = ", ".join(self.classes)
                raise ValueError(f"{path}: no class {name!r}; the classes are {known}")
        return self

    def _named_classes(self) -> list[tuple[str, str]]:
        found = [
            (f"slo.{slo}.match.classes", name)
            for slo, section in self.slo.items()
            for name in section.match.classes
        ]
        if isinstance(self.arrivals, StreamsSection):
            for index, stream in enumerate(self.arrivals.streams):
                found += [
                    (f"arrivals.streams[{index}].classes", name) for name in stream.classes or {}
                ]
        elif not isinstance(self.arrivals, TraceSection):
            found += [("arrivals.classes", name) for name in self.arrivals.classes or {}]
        return found
