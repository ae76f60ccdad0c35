"""The commands of the renewal server: `serve` and the group `server`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from flowauth_rotator.server.commands.audiences import (
    add_audience,
    add_role,
    audiences,
    delete_audience,
    delete_role,
    roles,
    set_audience,
    set_role,
)
from flowauth_rotator.server.commands.keys import (
    public_key,
    rotate_encryption_key,
    rotate_signing_key,
)
from flowauth_rotator.server.commands.maintenance import backup, init, prune, upgrade
from flowauth_rotator.server.commands.serving import serve
from flowauth_rotator.server.commands.tokens import mint, revoke_token, tokens
from flowauth_rotator.server.commands.users import (
    add_user,
    delete_user,
    grant,
    revoke,
    set_password,
    users,
)

__all__ = ["serve", "server"]

SECTIONS = {
    "Data directory": (init, upgrade, backup, prune),
    "Audiences and roles": (
        *(add_audience, set_audience, delete_audience, audiences),
        *(add_role, set_role, delete_role, roles),
    ),
    "Users": (add_user, set_password, delete_user, users, grant, revoke),
    "Tokens": (mint, tokens, revoke_token),
    "Keys": (public_key, rotate_signing_key, rotate_encryption_key),
}


class _SectionedGroup(click.Group):
    """A group whose help lists its commands in sections."""

    def __init__(self, sections: Mapping[str, Sequence[click.Command]], **attributes: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(commands=sum(map(tuple, sections.values()), ()), **attributes)
        self._sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the sections, with their columns aligned."""
        width = max(map(len, self.commands))
        help_width = formatter.width - width - 6
        for title, commands in self._sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(str(c.name).ljust(width), c.get_short_help_str(help_width)) for c in commands]
                )


@click.group(cls=_SectionedGroup, sections=SECTIONS)
def server() -> None:
    """Set up and maintain the bundled renewal server.

    \b
    Example, from an empty directory to a first token:
      export FLOWAUTH_ROTATOR_DATA_DIR=$HOME/flowauth-rotator
      flowauth-rotator server init
      flowauth-rotator server add-audience TEST_SERVER --max-lifetime-minutes 10080
      flowauth-rotator server add-role viewer --audience TEST_SERVER \\
          --scope get_results --max-lifetime-minutes 1440
      flowauth-rotator server add-user flowbot
      flowauth-rotator server grant flowbot viewer
      flowauth-rotator server mint --user flowbot --audience TEST_SERVER \\
          --name AIRFLOW --role viewer --output flowapi.token

    All commands except `init` and `upgrade` can run while the server is running: changes take
    effect with its next request.
    """  # noqa: D301 - \b is click's mark for preformatted text
