"""Pages of HTML from templates that trust nothing they print."""

from typing import Any

import jinja2


def environment(package: str, **options: Any) -> jinja2.Environment:
    """The templates of a package. They escape every value they print, and refuse a name they were not given.

    `options` are further ones of `jinja2.Environment`.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
