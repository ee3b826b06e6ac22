"""Patterns of names, by which settings choose layers and parameters of a network."""

from typing import Annotated, Any

from pydantic import BeforeValidator


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Patterns = Annotated[tuple[str, ...], BeforeValidator(_several)]
"""Names in which * stands for anything; one may be given without a list around it."""
