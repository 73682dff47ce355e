"""The commands that run the service and make its API keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from inkdigits.cli.options import FILE, MODEL, SHARE


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1; env: INKDIGITS_HOST]")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: 5000; env: PORT]"
)
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    help="Worker processes.  [default: one per core; env: INKDIGITS_WORKERS]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="Threads per worker.  [default: 4; env: INKDIGITS_THREADS]",
)
@click.option(
    "--page/--no-page",
    default=None,
    help="Serve the page beside the API.  [default: on; env: INKDIGITS_PAGE]",
)
@click.option(
    "--tls-cert",
    type=FILE,
    help="Certificate chain in PEM; the service then speaks HTTPS.  [env: INKDIGITS_TLS_CERT]",
)
@click.option(
    "--tls-key", type=FILE, help="The certificate's private key in PEM.  [env: INKDIGITS_TLS_KEY]"
)
@click.option(
    "--risk",
    type=SHARE,
    help="Tolerated share of wrong readings among the accepted, for requests without their own.  "
    "[default: the model's; env: INKDIGITS_RISK]",
)
@click.option(
    "--shadow",
    help="Version or path of a second model that answers nobody.  [env: INKDIGITS_SHADOW]",
)
@click.option(
    "--share",
    "shadow_share",
    type=click.FloatRange(0, 1),
    help="Share of the pictures that it reads too.  [default: 0.1; env: INKDIGITS_SHADOW_SHARE]",
)
@MODEL
def serve(*, page: bool | None, **options: Any) -> None:
    """Serve the page and the HTTP API until Ctrl-C.

    Options take precedence over environment variables. docs/serve.md lists all settings.
    """
    from inkdigits.serving.gunicorn import serve as run_gunicorn
    from inkdigits.settings import Settings

    # The options have the names of the settings.
    given = {name: value for name, value in options.items() if value is not None}
    if page is not None:
        given["page"] = "on" if page else "off"
    run_gunicorn(replace(Settings.from_env(), **given))


@click.command()
@click.argument("name")
def key(name: str) -> None:
    """Make an API key for the user NAME.

    Give the key to the user, and add the line to the service's file of keys. The key cannot be
    found from the line.
    """
    from inkdigits.serving.api.keys import digest_of, new_key
    from inkdigits.settings import parse_api_keys

    made = new_key()
    line = f"{name}:{digest_of(made)}"
    parse_api_keys(line)
    click.echo(f"key   {made}\nline  {line}")
