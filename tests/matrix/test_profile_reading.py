from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tomli
from packaging.requirements import Requirement

from envcheck.errors import InputError, UsageError
from envcheck.facts.metadata import normalised
from envcheck.matrix.database import load
from envcheck.matrix.patches import load_patches
from envcheck.matrix.profile_audit import audit_profile, audit_profiles
from envcheck.matrix.profile_reading import read_profiles
from envcheck.matrix.profile_requirements import lock_markers, lock_request, wanted_packages
from envcheck.matrix.profiles import Named, find_name, load_profiles, open_profile, plain

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = load(environ={}).folder
PROFILES = load_profiles(FOLDER)

GOOD = """
[[profile]]
id = "toy"
name = "Toy 1"
use = ["train"]
source = { url = "https://example.org/toy", release = "1", date = "2026-11-24" }
python = "==3.11.*"
requires = ["torch==2.6.0", "numpy>=1.26; python_version < '3.12'", "tomli; python_version < '3.11'"]
[profile.provenance]
evidence = ["example/toy@abc:pyproject.toml"]
reviewed = 2026-11-24
"""


def read(text: str) -> tuple[list[Any], list[str]]:
    found, mistakes = read_profiles(tomli.loads(text), "profiles/toy.toml")
    return list(found), mistakes


def test_a_small_profile_is_enough() -> None:
    (profile,), mistakes = read(GOOD)
    assert mistakes == []
    assert list(audit_profile(profile, set())) == []
    assert list(wanted_packages(profile, lock_markers("3.11"))) == ["torch", "numpy"]
    assert lock_request(profile).python == "3.11"


def test_every_mistake_of_a_file_is_named_at_once() -> None:
    text = GOOD.replace('"train"', '"train", "sing"').replace("==3.11.*", "three").replace("torch==2.6.0", "torch ==== 2")
    text = text.replace("reviewed = 2026-11-24", 'reviewed = "soon"\ncolour = "blue"')
    text += """
[[profile]]
id = "Toy Two"
name = 3
groups = ["train"]
python = ">=3.10"
source = { url = "u", release = "r", date = "2026-11" }
provenance = { evidence = ["e"], reviewed = 2026-11-24 }
use = ["train"]
bounds = [{ spec = "numpy<2", why = "w" }, { spec = "!!", why = "w", source = "s" }]
needs = [{ what = "heads", at_least = 2, why = "w" }, { what = "gpus", at_least = 1, at_most = 2, why = "w" }]
steps = [{ text = "t", verify = { program = ["a"], git = "b" } }, { verify = {} }, "t"]
servers = [{ name = "vllm", package = "vllm", spec = "new" }]
server = "maybe"

[[pitfall]]
profiles = ["toy", "nobody"]
text = "t"
"""
    _, mistakes = read(text)
    for part in (
        "toy.use: must be of train, infer, serve, client, not `sing`",
        "toy.python: `three` is not a specifier set",
        "toy.requires: `torch ==== 2` is not a requirement",
        "toy.provenance: unknown key `colour`",
        "must be dates",
        "Toy Two.id: must be kebab-case",
        "Toy Two.groups: `optional` has no `train`",
        "Toy Two.bounds[0]: `source` is missing",
        "bounds[0]: `!!` is not a requirement",
        "needs[0].what: must be one of compute_capability",
        "needs[1]: needs exactly one of `at_least` and `at_most`",
        "steps[0].verify: needs exactly one of",
        "steps[0].verify: `git` needs a `url`",
        "steps[1]: `text` is missing",
        "steps[2]: must be a table, not a text",
        "servers[0].spec: `new` is not a specifier set",
        "Toy Two.server: must be `required`",
        "pitfall[0].profiles: no profile of this file is called `nobody`",
        "pitfall[0]: `source` is missing",
    ):
        assert any(part in line for line in mistakes), part
    assert all(line.startswith("profiles/toy.toml") for line in mistakes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("==3.11.*", ">=3.10"), "`lock.python` has to name one"),
        (('requires = ["torch==2.6.0"', 'requires = ["torch==2.6.0", "torch==2.7.0"'), "no version of `torch` is in"),
        (('requires = ["torch==2.6.0"', 'requires = ["toy @ git+https://example.org/toy"'), "has to be in `lock.left_out`"),
        (("python = ", 'bounds = [{ spec = "torch>=2.7", why = "w", source = "s" }]\npython = '), "contradicts `torch==2.6.0`"),
        (("python = ", 'needs = [{ what = "gpus", at_least = 8, why = "w" }]\npython = '), "has no `source`"),
        (
            ("python = ", 'needs = [{ what = "compute_capability", at_most = "9.0", why = "w", source = "s" }]\npython = '),
            "`at_most` needs the `torch_cuda`",
        ),
        (("python = ", 'steps = [{ text = "t", verify = { patched = ["x"] } }]\npython = '), "`x` is no patch"),
        (("[profile.p", '[profile.lock]\nleft_out = [{ what = "apex", why = "w", do = "d" }]\n[profile.p'), "wants no `apex`"),
        (('evidence = ["example/toy@abc:pyproject.toml"]', "evidence = []"), "provenance.evidence: is empty"),
    ],
)  # fmt: skip
def test_lint_refuses_a_profile_that_contradicts_itself(change: tuple[str, str], said: str) -> None:
    (profile,), mistakes = read(GOOD.replace(*change))
    assert mistakes == []
    assert any(said in text for text in audit_profile(profile, {"vila-10-transformers"}))


def test_the_shipped_profiles_pass_lint() -> None:
    assert audit_profiles(FOLDER, {patch.id for patch in load_patches(FOLDER)}) == []


def test_two_profiles_cannot_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "a.toml").write_text(GOOD)
    (tmp_path / "profiles" / "b.toml").write_text(GOOD.replace('id = "toy"', 'id = "other"\naliases = ["to-y"]'))
    (tmp_path / "profiles" / "c.toml").write_text("[[profile")
    mistakes = audit_profiles(tmp_path, set())
    assert any("the name `to-y` is taken by `toy`" in line for line in mistakes)
    assert any(line.startswith("profiles/c.toml: ") for line in mistakes)
    assert open_profile(tmp_path, "other").id == "other"  # a broken neighbour does not matter
    with pytest.raises(InputError):
        load_profiles(tmp_path)


BROKEN = """# a comment
[[profile]]
id = "one"
name = "One"
use = ["sing"]
neds = []
source = { url = "u", release = "r", date = "2026-11" }
python = "==3.11.*"
requires = [
  "torch=2",
]
steps = [
  { text = "Install ffmpeg.", verify = { programm = ["ffmpeg"] } },
]
[profile.provenance]
evidence = []
reviewed = 2026-11-24

[[profile]]
name = "no id"

[[profile]]
id = "two-1.0"
name = "Two"
use = ["train"]
source = { url = "u", release = "r", date = "2026-11" }
python = ">=3.10"
requires = ["x @ git+https://example.org/x"]
[[profile.needs]]
what = "gpus"
at_least = 1
why = "w"
[profile.lock]
python = "3.9"
[profile.provenance]
evidence = ["e"]
reviewed = 2026-11-24
"""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (5, "one.use: must be of"),
        (6, "one: unknown key `neds`"),
        (9, "one.requires: `torch=2` is not a requirement"),
        (12, "one.steps[0].verify: unknown key `programm`"),
        (19, "profile 2: `use` is missing"),
        (33, "two-1.0.lock.python: 3.9 is not in `>=3.10`"),
        (28, "two-1.0.requires: `x@ git+https://example.org/x` has to be in `lock.left_out`"),
        (29, "two-1.0.needs.gpus: has no `source` and is not `inferred`"),
    ],
)
def test_a_mistake_is_named_with_its_line(line: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "a.toml").write_text(BROKEN)
    found = audit_profiles(tmp_path, set())
    assert any(item.startswith(f"profiles/a.toml:{line}: {says.partition('`x@')[0]}") for item in found), found
    with pytest.raises(InputError, match=r"profiles/a\.toml:5: one\.use"):
        open_profile(tmp_path, "one")


NAMES = [Named(profile.id, profile.name, profile.aliases, profile.file) for profile in PROFILES]


@pytest.mark.parametrize("profile", PROFILES, ids=[profile.id for profile in PROFILES])
def test_a_profile_answers_to_its_names_in_any_spelling(profile: Any) -> None:
    for name in (profile.id, profile.name, *profile.aliases):
        for spelled in (name, name.upper(), name.replace("-", "_"), name.replace("-", " "), f" {name} "):
            assert find_name(NAMES, spelled).id == profile.id
    assert plain(profile.id)


@pytest.mark.parametrize(
    ("name", "says"),
    [("nvilla", "did you mean `nvila`"), ("kimi", "may be any of 3 profiles"), ("", "no profile"), ("x" * 5000, "lists them")],
)
def test_an_unknown_or_ambiguous_name_is_a_usage_error(name: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_name(NAMES, name)
    assert says in str(caught.value)


@pytest.mark.parametrize("profile", PROFILES, ids=[profile.id for profile in PROFILES])
def test_what_a_lock_cannot_hold_is_said(profile: Any) -> None:
    """Nothing that only git, a URL or a compiler can give is asked of an index, and each such thing is named with a way out."""
    request = lock_request(profile)
    asked = " ".join((*request.requirements, *request.overrides))
    assert "git+" not in asked
    assert "https://" not in asked
    names = {normalised(Requirement(line).name) for line in request.requirements}
    assert not names & {"flash-attn", "apex", "transformer-engine"}
    for name, item in wanted_packages(profile, lock_markers(request.python)).items():
        if item.url and not request.refused:
            assert name in {left.what for left in request.left_out}
    assert all(left.why and left.do for left in request.left_out)
    assert bool(request.requirements) is not bool(request.refused)


def test_a_lock_that_is_refused_says_why() -> None:
    refused = {profile.id: profile.lock.refused for profile in PROFILES if profile.lock.refused}
    assert refused.keys() == {"kimi-k2-thinking-sft"}
    assert "nothing of it is on a package index" in refused["kimi-k2-thinking-sft"]
