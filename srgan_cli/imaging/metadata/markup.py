"""Locations of the elements and attributes of an XML packet, found in one pass for any input.

Nothing is resolved or loaded: a document type (which could declare entities) is refused, and references such as `&amp;`
stay text. So an XMP packet can be edited in place, and every other byte stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_NAME = re.compile(r"[^\s=/>\"'<&!?]+")
_ATTRIBUTE = re.compile(r"(\s+)([^\s=/>\"'<&]+)\s*=\s*(\"[^\"<]*\"|'[^'<]*')")
_END = re.compile(r"\s*(/?)>")
_CLOSE = re.compile(r"</([^\s>]+)\s*>")

Name = tuple[str, str]  # the namespace, and the local name


@dataclass(frozen=True)
class Attribute:
    """`start` is where the white space before it begins; the value is between its quotes."""

    name: Name
    start: int
    value_start: int
    value_end: int

    @property
    def end(self) -> int:
        return self.value_end + 1


@dataclass
class Element:
    """From `start` to `end`; its contents from `inner` to `inner_end`. `children` is the number of elements inside."""

    name: Name
    start: int
    inner: int
    attributes: tuple[Attribute, ...]
    parent: int | None
    inner_end: int = -1
    end: int = -1
    children: list[int] = field(default_factory=list)


class _Scopes:
    """The meaning of each prefix in the current scope: a stack per prefix, so that deep nesting costs nothing."""

    def __init__(self) -> None:
        self._meanings: dict[str, list[str]] = {"xml": ["http://www.w3.org/XML/1998/namespace"]}

    def open(self, declared: dict[str, str]) -> None:
        for prefix, meaning in declared.items():
            self._meanings.setdefault(prefix, []).append(meaning)

    def close(self, declared: dict[str, str]) -> None:
        for prefix in declared:
            self._meanings[prefix].pop()

    def name(self, text: str, *, attribute: bool = False) -> Name:
        prefix, colon, rest = text.partition(":")
        if not colon:
            prefix, rest = "", text
            if attribute:
                return "", rest
        meanings = self._meanings.get(prefix)
        return (meanings[-1] if meanings else ""), rest


def elements(text: str) -> list[Element]:
    """All elements in the order of their starts. Raises `ValueError` if the packet is not well-formed."""
    found: list[Element] = []
    opened: list[tuple[int, str, dict[str, str]]] = []
    scopes = _Scopes()
    at = 0
    while (at := text.find("<", at)) >= 0:
        if text.startswith(("<?", "<!"), at):
            at = _skipped(text, at)
        elif text.startswith("</", at):
            at = _closed(text, at, found, opened, scopes)
        else:
            at = _opened(text, at, found, opened, scopes)
    if opened:
        raise ValueError("an element has no end")
    return found


def _skipped(text: str, at: int) -> int:
    for start, end in (("<?", "?>"), ("<!--", "-->"), ("<![CDATA[", "]]>")):
        if text.startswith(start, at):
            close = text.find(end, at + len(start))
            if close < 0:
                raise ValueError(f"{start} has no end")
            return close + len(end)
    raise ValueError("a document type is not accepted")


def _closed(
    text: str, at: int, found: list[Element], opened: list[tuple[int, str, dict[str, str]]], scopes: _Scopes
) -> int:
    close = _CLOSE.match(text, at)
    if close is None or not opened or opened[-1][1] != close[1]:
        raise ValueError("an end without its beginning")
    index, _, declared = opened.pop()
    scopes.close(declared)
    found[index].inner_end, found[index].end = at, close.end()
    return close.end()


def _opened(
    text: str, at: int, found: list[Element], opened: list[tuple[int, str, dict[str, str]]], scopes: _Scopes
) -> int:
    name = _NAME.match(text, at + 1)
    if name is None:
        raise ValueError("an element without a name")
    matches = list(_attributes(text, name.end()))
    end = _END.match(text, matches[-1].end() if matches else name.end())
    if end is None:
        raise ValueError("an element that does not end")
    declared = {
        one[2].partition(":")[2]: one[3][1:-1] for one in matches if one[2] == "xmlns" or one[2].startswith("xmlns:")
    }
    scopes.open(declared)
    attributes = tuple(
        Attribute(scopes.name(one[2], attribute=True), one.start(), one.start(3) + 1, one.end(3) - 1)
        for one in matches
        if one[2] != "xmlns" and not one[2].startswith("xmlns:")
    )
    parent = opened[-1][0] if opened else None
    element = Element(scopes.name(name[0]), at, end.end(), attributes, parent)
    if parent is not None:
        found[parent].children.append(len(found))
    found.append(element)
    if end[1]:
        element.inner_end = element.end = end.end()
        scopes.close(declared)
    else:
        opened.append((len(found) - 1, name[0], declared))
    return end.end()


def _attributes(text: str, at: int) -> Iterator[re.Match[str]]:
    while (found := _ATTRIBUTE.match(text, at)) is not None:
        yield found
        at = found.end()


@dataclass
class Edits:
    """Changes to a text, collected and applied together."""

    changes: list[tuple[int, int, str]] = field(default_factory=list)

    def put(self, start: int, end: int, text: str = "") -> None:
        self.changes.append((start, end, text))

    def applied(self, text: str) -> str:
        """The edited text. Edits inside a removed part have no effect."""
        parts = []
        done = 0
        for start, end, new in sorted(self.changes, key=lambda one: (one[0], -one[1])):
            if start < done:
                continue
            parts += [text[done:start], new]
            done = end
        return "".join(parts) + text[done:]
