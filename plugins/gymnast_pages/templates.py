"""Where pages come from: the templates of a package, with the style and script that all pages share."""

from __future__ import annotations

from collections.abc import Callable

import jinja2

from gymnast_core.money import in_dollars


def templates(package: str, **filters: Callable[..., str]) -> jinja2.Environment:
    """The templates beside a package's modules, then the shared ones; what tasks and files are called is escaped."""
    names = dict.fromkeys((package, "gymnast_pages"))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in names]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(in_dollars=in_dollars, **filters)
    return environment
