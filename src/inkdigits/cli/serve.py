"""The commands that run the service and make its API keys."""

from __future__ import annotations

import webbrowser
from dataclasses import replace
from typing import Any

import click
from click import FloatRange, IntRange

from inkdigits.cli.options import FILE, MODEL, PROCESSES, device, option, risk, say
from inkdigits.errors import ConfigError


class _Port(IntRange):
    """A port, or "auto" for the next free one."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


@click.command()
@option("--host", "Address to listen on.  [default: 127.0.0.1; env: INKDIGITS_HOST]")
@option(
    "--port",
    "Port to listen on; auto chooses the next free port.  [default: 5000; env: PORT]",
    _Port(1, 65535),
    metavar="PORT|auto",
)
@option("--open opens", "Open the page in the browser.", is_flag=True)
@option(
    "--workers",
    "Worker processes.  [default: one per core, one with --device; env: INKDIGITS_WORKERS]",
    PROCESSES,
)
@option("--threads", "Threads per worker.  [default: 4; env: INKDIGITS_THREADS]", IntRange(1, 256))
@option(
    "--page/--no-page",
    "Serve the page in addition to the API.  [default: on; env: INKDIGITS_PAGE]",
    default=None,
)
@option(
    "--tls-cert",
    "PEM file with the certificate chain, for HTTPS.  [env: INKDIGITS_TLS_CERT]",
    FILE,
)
@option("--tls-key", "PEM file with the private key.  [env: INKDIGITS_TLS_KEY]", FILE)
@risk(otherwise="the model's; env: INKDIGITS_RISK")
@device("Read with PyTorch on this device", otherwise="ONNX Runtime; env: INKDIGITS_DEVICE")
@option(
    "--shadow",
    "Version or path of a second model to compare. Clients do not receive the readings of this "
    "model.  [env: INKDIGITS_SHADOW]",
)
@option(
    "--share shadow_share",
    "Share of pictures that the second model also reads.  "
    "[default: 0.1; env: INKDIGITS_SHADOW_SHARE]",
    FloatRange(0, 1),
)
@MODEL
def serve(*, port: Any, page: bool | None, opens: bool, **options: Any) -> None:
    """Serve the page and the HTTP API until you press Ctrl-C.

    Options take precedence over environment variables. The file docs/serve.md lists all settings.
    """
    from inkdigits.serving.gunicorn import serve as run_gunicorn
    from inkdigits.serving.preflight import free_port
    from inkdigits.settings import Settings

    # The options have the names of the settings.
    given = {name: value for name, value in options.items() if value is not None}
    if page is not None:
        given["page"] = "on" if page else "off"
    settings = replace(Settings.from_env(), **given)
    if "shadow_share" in given and not settings.shadow:
        raise click.UsageError("--share needs --shadow")
    if port is not None:
        port = free_port(settings.host, settings.port) if port == "auto" else port
        settings = replace(settings, port=port)
    run_gunicorn(settings, when_ready=webbrowser.open if opens else lambda _: None)


@click.command()
@click.argument("name")
def key(name: str) -> None:
    """Create an API key for the user NAME.

    The command prints the key and a line for the service's file of API keys. The line contains the
    SHA-256 of the key instead of the key itself.
    """
    from inkdigits.serving.api.keys import digest_of, new_key
    from inkdigits.settings import parse_api_keys

    made = new_key()
    line = f"{name}:{digest_of(made)}"
    try:
        parse_api_keys(line)
    except ConfigError as error:
        allowed = "NAME must consist of 1 to 64 letters, digits, '.', '_' and '-'"
        raise click.UsageError(allowed) from error
    click.echo(f"key   {made}\nline  {line}")
    say(
        f"Give the key to {name}, who sends it in the header X-API-Key. It is not shown again.\n"
        "Add the line to the file at INKDIGITS_API_KEYS_FILE, and send SIGHUP to the service."
    )
