"""Versions as rules see them: local parts dropped, pre-releases and vendor builds counted as their release."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from packaging.version import InvalidVersion, Version

from envcheck.matrix.remembered import remembered

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

#: Longer strings are not versions, whatever the grammar says; a guard against absurd metadata.
LONGEST = 200


class Plain(NamedTuple):
    """A version as rules compare it.

    Attributes:
        version: Public part; for a pre-release, development or vendor build the release it leads to.
        exact: False where that step was taken.
    """

    version: Version
    exact: bool


@lru_cache(maxsize=4096)
def plain(text: str) -> Plain | None:
    """The comparable form of a version text, or None where it is not PEP 440.

    `2.6.0+cu124` gives 2.6.0; `2.5.0a0+e000.nv` gives 2.5.0, not exact.
    """
    if len(text) > LONGEST:
        return None
    try:
        version = Version(text)
    except InvalidVersion:
        return None
    if version.is_prerelease:
        return Plain(Version(f"{version.epoch}!{version.base_version.split('!')[-1]}"), exact=False)
    return Plain(Version(version.public) if version.local else version, exact=True)


@lru_cache(maxsize=8192)
def specifier(text: str) -> SpecifierSet:
    """The specifier set of `text`.

    Raises:
        InvalidSpecifier: `text` is not a PEP 440 specifier set.
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415 - not where no version is known

    if len(text) > LONGEST * 5:
        raise InvalidSpecifier(f"a specifier of {len(text)} characters")
    return SpecifierSet(text)


@remembered
def satisfies(version: str, spec: str) -> bool | None:
    """Whether the version is in the specifier set; None where the version is not PEP 440."""
    value = plain(version)
    if value is None:
        return None
    return specifier(spec).contains(value.version, prereleases=True)


def inside(version: str, spec: str) -> bool | None:
    """As `satisfies`, but a pre-release also counts where the specifier names it (`==1.8.dev18`, `>=5.0.0rc0`)."""
    held = satisfies(version, spec)
    return specifier(spec).contains(Version(version), prereleases=True) if held is False else held


def part(text: str, name: str) -> str | None:
    """`major`, `minor` (major.minor) or `local` of a version text; None where it is not PEP 440."""
    try:
        version = Version(text)
    except InvalidVersion:
        return None
    if name == "major":
        return str(version.major)
    if name == "minor":
        return f"{version.major}.{version.minor}"
    return version.local or "none"
