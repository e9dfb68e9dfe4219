from __future__ import annotations

import json
import unicodedata
import urllib.parse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.cli.console import render
from envcheck.findings import Evidence, Finding, Fix, Report, Severity, Skip, StackRow, Verdict, Waived
from envcheck.report.escape import HIDDEN, code_span, markdown, redacted, visible
from tests.report.sarif import validated

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


SHORT = [text for text in HOSTILE if len(text) < 100]
TEXT = st.text(st.characters(), max_size=40) | st.sampled_from([*SHORT, "a.json:0:0", "C:\\x\\a.json:1", "%zz:7", "../..:1:2"])
FINDING = st.builds(
    Finding,
    id=TEXT, severity=st.sampled_from(Severity), title=TEXT, subjects=st.lists(TEXT, max_size=2).map(tuple),
    observed=st.dictionaries(TEXT, TEXT, max_size=2), because=st.lists(TEXT, max_size=2).map(tuple), certain=st.booleans(),
    fixes=st.lists(st.builds(Fix, st.sampled_from(["package", "config", "do"]), TEXT), max_size=2).map(tuple),
    evidence=st.lists(st.builds(Evidence, st.sampled_from(["issue", "code"]), TEXT), max_size=2).map(tuple),
    symptom=TEXT, place=TEXT,
)  # fmt: skip
REPORT = st.builds(
    Report,
    findings=st.lists(FINDING, max_size=3).map(tuple),
    skipped=st.lists(st.builds(Skip, TEXT, TEXT, st.booleans()), max_size=2).map(tuple),
    stack=st.lists(st.builds(StackRow, TEXT, TEXT, TEXT), max_size=2).map(tuple), notes=st.lists(TEXT, max_size=2).map(tuple),
    waived=st.lists(st.builds(Waived, FINDING, TEXT, TEXT), max_size=2).map(tuple),
)  # fmt: skip


@given(REPORT)
def test_any_report_is_valid_sarif(report: Report) -> None:
    shown = render(report, "sarif", "s", verbose=False)
    assert shown.isascii()
    (run,) = validated(shown)["runs"]
    ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(ids)) == len(ids)
    assert {result["ruleId"] for result in run["results"]} == set(ids)
    assert len(run["results"]) == len(report.findings) + len(report.waived)
    for result in run["results"]:
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert urllib.parse.quote(uri, safe="/~") == uri


@given(REPORT)
def test_any_report_is_json_and_text_and_markdown(report: Report) -> None:
    assert json.loads(render(report, "json", "s", verbose=True))["schema"] == "s"
    for form in ("text", "markdown"):
        shown = render(report, form, "s", verbose=True).replace("@\u200b", "@")  # so that Markdown mentions nobody
        assert not [char for char in shown if char not in "\n\t" and unicodedata.category(char) in HIDDEN]


RUN: dict[str, Any] = {"tool": {"driver": {"name": "x"}}, "results": [{"message": {"text": "t"}}]}


def with_region(**region: object) -> dict[str, Any]:
    place = {"physicalLocation": {"artifactLocation": {"uri": "a"}, "region": region}}
    return {**RUN, "results": [{"message": {"text": "t"}, "locations": [place]}]}


@pytest.mark.parametrize(
    "run",
    [
        {**RUN, "tool": {}},
        {**RUN, "more": 1},
        {**RUN, "results": [{"message": {}}]},
        {**RUN, "results": [{}]},
        {**RUN, "results": [{"message": {"text": "t"}, "level": "info"}]},
        {**RUN, "results": [{"message": {"text": "t"}, "suppressions": [{}]}]},
        {**RUN, "invocations": [{}]},
        {**RUN, "tool": {"driver": {"name": "x", "rules": [{"id": "a"}, {"id": "a"}]}}},
        {**RUN, "tool": {"driver": {"name": "x", "rules": [{"id": "a", "help": {}}]}}},
        with_region(startLine=0),
        with_region(startLine="1"),
    ],
)
def test_what_is_not_sarif_is_refused(run: dict[str, Any]) -> None:
    validated(json.dumps({"version": "2.1.0", "runs": [RUN]}))
    validated(json.dumps({"version": "2.1.0", "runs": [with_region(startLine=1)]}))
    with pytest.raises(ValueError, match=r"."):
        validated(json.dumps({"version": "2.1.0", "runs": [run]}))


@pytest.mark.parametrize("together", [False, True])
def test_fixes_that_are_all_needed_are_not_offered_as_alternatives(together: bool) -> None:
    finding = Finding("x", Severity.ERROR, "t", fixes=(Fix("package", "a==1"), Fix("package", "b==2")), together=together)
    for form in ("text", "markdown", "sarif"):
        flat = render(Report((finding,)), form, "s", verbose=False).replace("`", "").replace("\n  or        ", " or ")
        assert ("a==1, b==2" in flat, "a==1 or b==2" in flat) == (together, not together)
    assert json.loads(render(Report((finding,)), "json", "s", verbose=False))["findings"][0].get("together", False) is together
