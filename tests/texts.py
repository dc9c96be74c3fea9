"""Any text, for properties."""

from __future__ import annotations

from hypothesis import strategies as st

# `st.text()` first sorts all of Unicode into categories, which in a fresh checkout takes two seconds.
_CHARACTERS = st.one_of(
    st.sampled_from("abc 019é写×\\\"'#=[]{}\n\r\t"),
    st.integers(0, 0xD7FF).map(chr),
    st.integers(0xE000, 0x10FFFF).map(chr),
)


def texts(max_size: int | None = None, min_size: int = 0) -> st.SearchStrategy[str]:
    """Of any characters that UTF-8 can hold, those that mean something to parsers more often."""
    return st.lists(_CHARACTERS, min_size=min_size, max_size=max_size).map("".join)
