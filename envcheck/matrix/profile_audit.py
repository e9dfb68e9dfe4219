"""What `envcheck matrix lint` refuses in profiles: mistakes of form, and profiles that contradict themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from envcheck.facts.metadata import normalised
from envcheck.matrix.profile_requirements import lock_markers, lock_python, lock_request, wanted_packages
from envcheck.matrix.profiles import parse_folder, with_lines
from envcheck.matrix.versions import satisfies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from envcheck.matrix.profile import Profile


def audit_profiles(folder: Path, patches: AbstractSet[str]) -> list[str]:
    """Every defect of the profiles in `folder`, one line each; `patches` are the ids of the known patches.

    A profile with mistakes of form is not judged further: its values may not be what their types say.
    """
    profiles, mistakes = parse_folder(folder)
    sound = [item for item in profiles if not any(_speaks_of(mistake, item) for mistake in mistakes)]
    found = [f"{profile.file}: {profile.id}.{text}" for profile in sound for text in audit_profile(profile, patches)]
    return [*mistakes, *with_lines(folder, found)]


def _speaks_of(mistake: str, profile: Profile) -> bool:
    return mistake.startswith(f"{profile.file}:") and any(f": {profile.id}{end}" in mistake for end in ".:")


def audit_profile(profile: Profile, patches: AbstractSet[str]) -> Iterator[str]:
    """The defects of one profile on its own."""
    for step in profile.steps:
        for name in (name for name in (step.verify.patched if step.verify else ()) if name not in patches):
            yield f"steps: `{name}` is no patch of `patches/*.toml`"
    if not profile.provenance.evidence:
        yield "provenance.evidence: is empty"
    if not profile.use:
        yield "use: does not say what it is for"
    python = lock_python(profile)
    if not python:
        yield "python: admits several minor versions, so `lock.python` has to name one"
        return
    if not satisfies(f"{python}.99", profile.python):
        yield f"lock.python: {python} is not in `{profile.python}`"
    yield from _needs(profile)
    yield from _packages(profile, python)


def _needs(profile: Profile) -> Iterator[str]:
    for need in profile.needs:
        if not need.source and not need.inferred:
            yield f"needs.{need.what}: has no `source` and is not `inferred`"
        if need.at_most and not need.torch_cuda:
            yield f"needs.{need.what}: `at_most` needs the `torch_cuda` of the build it speaks of"


def _packages(profile: Profile, python: str) -> Iterator[str]:
    wanted = wanted_packages(profile, lock_markers(python))
    for name, item in wanted.items():
        if SpecifierSet(item.spec).is_unsatisfiable():
            yield f"requires: no version of `{name}` is in `{item.spec}`; an override has to take its place"
    for bound in profile.bounds:
        requirement = Requirement(bound.spec)
        other = wanted.get(normalised(requirement.name))
        if other and (requirement.specifier & SpecifierSet(other.spec)).is_unsatisfiable():
            yield f"bounds: `{bound.spec}` contradicts `{other.name}{other.spec}`"
    out = {item.what for item in profile.lock.left_out}
    if not profile.lock.refused:
        for line in lock_request(profile).requirements:
            if Requirement(line).url:
                yield f"requires: `{line}` has to be in `lock.left_out`: no index lock can hold it"
    for name in out - wanted.keys():
        yield f"lock.left_out: the profile wants no `{name}`"
