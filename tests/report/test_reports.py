from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.cli.console import render
from envcheck.findings import Evidence, Finding, Fix, Report, Severity, Skip, StackRow, Verdict, Waived
from envcheck.report.escape import HIDDEN, code_span, markdown, redacted, visible

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "<script>alert(1)</script>",
    "| a | b |\n|---|---|",
    "[link](javascript:alert(1))",
    "\u202egnp.exe",
    "`` ` ``",
    "@everyone",
    "a" * 100_000,
    "\ud800",
    "$(rm -rf /)",
    "-->",
]


def report_with(text: str) -> Report:
    finding = Finding(
        id="x", severity=Severity.ERROR, title=f"`{text}` is bad", subjects=(text,), observed={text: text},
        because=(text,), fixes=(Fix("package", text), Fix("do", text)), evidence=(Evidence("issue", text),),
        symptom=text, place="a.json:3:4",
    )  # fmt: skip
    return Report(
        findings=(finding,), skipped=(Skip(text, text),), stack=(StackRow(text, text, text),), notes=(text,),
        waived=(Waived(finding, text, ""),),
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("form", ["text", "json", "markdown", "sarif"])
def test_hostile_text_is_harmless_in_every_format(text: str, form: str) -> None:
    shown = render(report_with(text), form, "s", verbose=True)
    shown.encode()
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    if form in ("json", "sarif"):
        json.loads(shown)
    if form == "markdown":
        outside_code = "".join(shown.split("`")[::2])
        assert "<script" not in outside_code
        assert "](javascript" not in outside_code


@given(st.text())
def test_visible_text_is_one_line_without_hidden_characters(text: str) -> None:
    import unicodedata  # noqa: PLC0415 - only here

    assert not [char for char in visible(text) if unicodedata.category(char) in HIDDEN]
    assert visible(visible(text)) == visible(text)


@given(st.text(alphabet="`|ab ", max_size=12))
def test_a_code_span_cannot_be_left(text: str) -> None:
    span = code_span(text)
    fence = len(span) - len(span.lstrip("`"))
    assert "`" * fence not in span[fence:-fence].strip(" ").replace("\\|", "|").strip("`") or fence > 1
    assert "\n" not in markdown(text)


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("/home/alice/venv/lib", "alice"),
        ("/Users/bob/x", "bob"),
        ("/root/x", "root"),
        ("https://user:pw@host/simple", "pw"),
        ("https://user:p@ssw@host/simple", "ssw"),
        ("HF_TOKEN=hf_abcdefghijklmnop", "abcdefgh"),
        ("ghp_0123456789abcdefghij", "0123456789"),
        ("api_key: s3cr3t", "s3cr3t"),
    ],
)
def test_private_things_are_redacted(text: str, gone: str) -> None:
    assert gone not in redacted(text)


def test_markdown_has_no_home_folder() -> None:
    report = Report(stack=(StackRow("environment", "/home/alice/.venv"),))
    assert "alice" not in render(report, "markdown", "s", verbose=False)


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (Report(), Verdict.OK),
        (Report(findings=(Finding("i", Severity.INFO, "t"),)), Verdict.OK),
        (Report(findings=(Finding("w", Severity.WARNING, "t"),)), Verdict.WARNING),
        (Report(findings=(Finding("e", Severity.ERROR, "t"),), skipped=(Skip("a", "b", asked=True),)), Verdict.ERROR),
        (Report(skipped=(Skip("a", "b", asked=True),)), Verdict.UNKNOWN),
        (Report(skipped=(Skip("a", "b"),)), Verdict.OK),
    ],
)
def test_verdicts(report: Report, verdict: Verdict) -> None:
    assert report.verdict is verdict


#: The parts of the SARIF 2.1.0 schema that this output uses; the whole schema is not shipped by any package index.
SARIF: dict[str, Any] = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "$schema": {"type": "string", "format": "uri"},
        "runs": {"type": "array", "items": {"$ref": "#/$defs/run"}},
    },
    "additionalProperties": False,
    "$defs": {
        "message": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "run": {
            "type": "object",
            "required": ["tool"],
            "properties": {
                "tool": {
                    "type": "object",
                    "required": ["driver"],
                    "properties": {
                        "driver": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"rules": {"type": "array", "uniqueItems": True, "items": {"required": ["id"]}}},
                        }
                    },
                },
                "results": {"type": "array", "items": {"$ref": "#/$defs/result"}},
                "invocations": {"type": "array", "items": {"required": ["executionSuccessful"]}},
                "properties": {"type": "object"},
            },
            "additionalProperties": False,
        },
        "result": {
            "type": "object",
            "required": ["message"],
            "properties": {
                "ruleId": {"type": "string"},
                "level": {"$ref": "#/$defs/level"},
                "message": {"$ref": "#/$defs/message"},
                "locations": {
                    "type": "array",
                    "items": {
                        "properties": {
                            "physicalLocation": {
                                "required": ["artifactLocation"],
                                "properties": {
                                    "artifactLocation": {"required": ["uri"]},
                                    "region": {"properties": {"startLine": {"type": "integer", "minimum": 1}}},
                                },
                            }
                        }
                    },
                },
                "suppressions": {
                    "type": "array",
                    "items": {"properties": {"kind": {"enum": ["inSource", "external"]}}},
                },
                "properties": {"type": "object"},
            },
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("text", ["deepspeed", *HOSTILE])
def test_sarif_has_the_shape_of_its_schema(text: str) -> None:
    import jsonschema  # noqa: PLC0415 - only here

    document = json.loads(render(report_with(text), "sarif", "s", verbose=False))
    jsonschema.validate(document, SARIF)
    (run,) = document["runs"]
    ids = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in run["results"]} <= ids
    for result in run["results"]:
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert urllib.parse.quote(uri, safe="/~") == uri
