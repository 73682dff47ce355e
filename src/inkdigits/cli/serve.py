"""The commands that run the service and make its API keys."""

from __future__ import annotations

import webbrowser
from dataclasses import replace
from typing import Any

import click

from inkdigits.cli import options
from inkdigits.cli.options import FILE, MODEL, PROCESSES, say


class _Port(click.IntRange):
    """A port, or "auto" for the next free one."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1; env: INKDIGITS_HOST]")
@click.option(
    "--port",
    type=_Port(1, 65535),
    metavar="PORT|auto",
    help="Port to listen on; auto takes the next free one.  [default: 5000; env: PORT]",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--workers",
    type=PROCESSES,
    help="Worker processes.  [default: one per core, one with an accelerator; env: "
    "INKDIGITS_WORKERS]",
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
@options.risk("readings", otherwise="the model's; env: INKDIGITS_RISK")
@options.device(
    "Read with PyTorch on this device",
    otherwise="ONNX Runtime on the CPU; env: INKDIGITS_DEVICE",
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
def serve(*, page: bool | None, opens: bool, **options: Any) -> None:
    """Serve the page and the HTTP API until Ctrl-C.

    Options take precedence over environment variables. docs/serve.md lists all settings.
    """
    from inkdigits.serving.gunicorn import serve as run_gunicorn
    from inkdigits.serving.preflight import free_port
    from inkdigits.settings import Settings

    port = options.pop("port")
    # The other options have the names of the settings.
    given = {name: value for name, value in options.items() if value is not None}
    if page is not None:
        given["page"] = "on" if page else "off"
    settings = replace(Settings.from_env(), **given)
    if port is not None:
        port = free_port(settings.host, settings.port) if port == "auto" else port
        settings = replace(settings, port=port)
    run_gunicorn(settings, when_ready=webbrowser.open if opens else lambda _: None)


@click.command()
@click.argument("name")
def key(name: str) -> None:
    """Make an API key for the user NAME.

    The key cannot be found from the line that the service keeps.
    """
    from inkdigits.serving.api.keys import digest_of, new_key
    from inkdigits.settings import parse_api_keys

    made = new_key()
    line = f"{name}:{digest_of(made)}"
    parse_api_keys(line)
    click.echo(f"key   {made}\nline  {line}")
    say(
        f"Give the key to {name}, who sends it as the header X-API-Key; it is not shown again.\n"
        "Add the line to the file that INKDIGITS_API_KEYS_FILE names, and send the service SIGHUP."
    )
