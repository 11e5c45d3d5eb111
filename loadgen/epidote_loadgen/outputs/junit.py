"""This file is about JUnit XML: one test case an objective, for CI to show."""

from pathlib import Path
from xml.etree import ElementTree as ET

from epidote_loadgen.outputs.document import Document
from epidote_loadgen.outputs.writing import write_bytes
from epidote_loadgen.verdict.verdict import ExitCode, Outcome


def junit(run: Document) -> bytes:
    """A missed objective is a failure; an undecided one, a void run or no target an error."""
    verdict, about = run["verdict"], run["run"]
    suite = ET.Element(
        "testsuite",
        name="epidote-loadgen",
        timestamp=str(about["started_at"]),
        time=f"{about['duration_s']:.3f}",
    )
    for found in verdict["objectives"]:
        name = f"{found['objective']} for {100 * found['ratio']:g} %"
        case = ET.SubElement(
            suite, "testcase", classname=f"slo.{found['class']}", name=name, time="0"
        )
        told = (
            f"attained {found['attainment']:.4f} ({found['low']:.4f} to {found['high']:.4f}) "
            f"of {found['num_requests']} requests, promised {found['ratio']:g}, "
            f"at {100 * verdict.get('each_confidence', 0.95):.4g} %"
            if found["num_requests"]
            else f"judged no request, promised {found['ratio']:g}"
        )
        if found["outcome"] == Outcome.FAIL:
            ET.SubElement(case, "failure", message=told, type="SloMissed")
        elif found["outcome"] == Outcome.INCONCLUSIVE:
            ET.SubElement(case, "error", message=told, type="Inconclusive")
        ET.SubElement(case, "system-out").text = told
    case = ET.SubElement(suite, "testcase", classname="run", name="can be trusted", time="0")
    if about["void_reason"] or verdict["exit_code"] == ExitCode.UNREACHABLE:
        ET.SubElement(case, "error", message=_legal(str(verdict["reason"])), type="Void")
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    root = ET.Element("testsuites", {k: suite.attrib[k] for k in ("tests", "failures", "errors")})
    root.append(suite)
    ET.indent(root)
    text = str(ET.tostring(root, "unicode"))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _legal(text: str) -> str:
    """Without the control characters that XML has no way to write."""
    return "".join(char if char >= " " or char in "\t\n" else "?" for char in text)


def write_junit(path: Path, run: Document) -> None:
    """Raises OSError."""
    write_bytes(path, junit(run))
