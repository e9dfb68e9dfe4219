"""Broken metadata: two folders for one distribution, unreadable ones, half-removed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.findings import Evidence, Finding, Fix, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.facts.model import MetadataProblem

SPECIFICATION = Evidence("docs", "PyPA specifications: Recording installed projects")
EVIDENCE = {
    "duplicate": (SPECIFICATION, Evidence("issue", "python/cpython#100666")),
    "broken": (SPECIFICATION, Evidence("docs", "Python documentation: importlib.metadata")),
    "leftover": (SPECIFICATION, Evidence("code", "pypa/pip: warning about invalid distributions")),
}
SYMPTOMS = {
    "duplicate": "An installer and the interpreter may disagree about which version is there",
    "broken": "The version may read as None, and libraries that compare it fail: `expected string or bytes-like object`",
    "leftover": "pip warns at every start (`Ignoring invalid distribution`), and the package may be half removed",
}


def check_metadata(context: Context) -> Iterator[Outcome]:
    """One finding for each metadata folder that is duplicate, broken or left over."""
    for problem in context.environment.problems:
        yield _finding(problem)


def _finding(problem: MetadataProblem) -> Finding:
    titles = {
        "duplicate": f"`{problem.name}` has more than one metadata folder",
        "broken": f"the metadata of `{problem.name}` cannot be read",
        "leftover": f"`{problem.name}` is a half-removed package",
    }
    changes = {
        "duplicate": f"reinstall `{problem.name}`: pip uninstall it until it is gone, then install it once",
        "broken": f"pip install --force-reinstall --no-deps {problem.name}",
        "leftover": "delete the folder whose name begins with `~`",
    }
    return Finding(
        id=f"metadata-{problem.kind}",
        severity=Severity.INFO if problem.kind == "leftover" else Severity.WARNING,
        title=titles[problem.kind],
        subjects=(problem.name,),
        observed={problem.name: problem.path},
        because=(problem.detail or f"seen at {problem.path}",),
        fixes=(Fix("do", changes[problem.kind]),),
        evidence=EVIDENCE[problem.kind],
        symptom=SYMPTOMS[problem.kind],
    )
