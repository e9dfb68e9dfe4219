"""Version ranges as the places at which membership changes, so that a check compares numbers and not texts.

A version as rules see it (`versions.plain`) is a release or a post-release, without a local part. Over those a specifier set
changes its mind only at a few positions, which are found when the cache is made, by asking `packaging` between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packaging.version import Version

from envcheck.matrix.versions import specifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: Where a version stands in the order of versions: epoch, release without trailing zeros, and what follows the release:
#: [0] nothing, [1, n] post-release n, [2] the place after every post-release.
Position = list[Any]

FIRST: Position = [0, [], [0]]

#: Digits in which the sortable form of a position says how many digits a number has.
DIGITS = 4


def position(version: Version) -> Position:
    """The position of a release or post-release."""
    return [version.epoch, _stripped(version.release), [0] if version.post is None else [1, version.post]]


def turns(spec: str) -> list[Position] | None:
    """The positions at which one enters and leaves a specifier set, in turn; None where texts are compared (`===`).

    Raises:
        InvalidSpecifier: `spec` is not a PEP 440 specifier set.
    """
    wanted = specifier(spec)
    if any(one.operator == "===" for one in wanted):
        return None
    places = distinct([FIRST, *(place for one in wanted for place in _places(one.version))])
    longest = max(len(release) for _, release, _ in places)
    found: list[Position] = []
    for here in places:
        if wanted.contains(_just_at(here, longest), prereleases=True) is not bool(len(found) % 2):
            found.append(here)
    return found


def distinct(places: Iterable[Position]) -> list[Position]:
    """In order, each once."""
    ordered = sorted(places)
    return [here for number, here in enumerate(ordered) if number == 0 or here != ordered[number - 1]]


def sortable(here: Position) -> bytes:
    """A position as text, without commas: such texts have the order of the positions, so that nothing need be parsed."""
    epoch, release, (kind, *post) = here
    return f"{_number(epoch)}{''.join(map(_number, release))}.{kind}{''.join(map(_number, post))}".encode()


def _number(value: int) -> str:
    digits = str(value)
    return f"{len(digits):0{DIGITS}}{digits}"


def _places(text: str) -> Iterator[Position]:
    """Every position at which a specifier with this version can change its mind, whatever its operator."""
    version = Version(text.removesuffix(".*"))
    release = _stripped(version.release)
    yield [version.epoch, release, [0]]
    yield [version.epoch, release, [2]]
    if version.post is not None:
        yield [version.epoch, release, [1, version.post]]
        yield [version.epoch, release, [1, version.post + 1]]
    for length in range(1, len(version.release) + 1):
        *front, last = version.release[:length]
        yield [version.epoch, _stripped((*version.release[:length],)), [0]]
        yield [version.epoch, _stripped((*front, last + 1)), [0]]


def _stripped(release: Sequence[int]) -> list[int]:
    parts = list(release)
    while parts and parts[-1] == 0:
        parts.pop()
    return parts


def _just_at(here: Position, longest: int) -> Version:
    """A version at a position; behind all post-releases one before every release of at most `longest` parts."""
    epoch, release, (kind, *post) = here
    text = f"{epoch}!{'.'.join(map(str, release or [0]))}"
    if kind == 1:
        return Version(f"{text}.post{post[0]}")
    return Version(text + ".0" * longest + ".1" if kind else text)
