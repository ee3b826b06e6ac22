"""Templates of the report's pages."""

from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from voxelseg.report.overlay import CONFUSED, PREDICTION, REFERENCE
from voxelseg.version import __version__


def filled(template: str, /, **values: Any) -> str:
    """HTML of a template filled with `values`; all of them know the colours, the time and the version, too."""
    environment = Environment(
        loader=PackageLoader("voxelseg.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        **values,
        colours={"reference": REFERENCE, "prediction": PREDICTION, "confused": CONFUSED},
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )
