"""Words that messages share."""

from collections.abc import Collection, Sequence

MOST_NAMED = 5


def some(names: Collection[str]) -> str:
    """The names, separated by commas; only the first `MOST_NAMED`, and how many more, if there are many."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(list(names)[:MOST_NAMED]) + more


def counted(count: int, thing: str, things: str = "") -> str:
    """Such as "1 case" and "2 cases"."""
    return f"{count} {thing}" if count == 1 else f"{count:,} {things or thing + 's'}".replace(",", "\u202f")


def listed(names: Sequence[str]) -> str:
    """Such as "A, B and C"; empty for none."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
