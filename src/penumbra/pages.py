"""Text from a template that stands beside the code that fills it in."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(room: str, template: str, context: Mapping[str, Any]) -> str:
    """``penumbra/<room>/<template>`` with its names filled in.

    In a template ``*.html.j2`` everything that is filled in is escaped, unless it is ``Markup``;
    in others nothing is.

    Raises:
        jinja2.UndefinedError: the template uses a name that ``context`` lacks.
    """
    environment = Environment(
        loader=PackageLoader("penumbra", room),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**context)
