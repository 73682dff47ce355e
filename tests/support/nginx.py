"""The real nginx with the repository's own configuration, as a process of its own."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.processes import wait_until
from support.repository import REPOSITORY
from support.server import free_port

CONFIGURATION = REPOSITORY / "deploy" / "nginx" / "inkdigits.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
UNDER_A_PATH = {
    'set $prefix "";': "set $prefix /digits;",
    "location / {": "location /digits/ {",
    "proxy_pass http://inkdigits;\n    }": "proxy_pass http://inkdigits/;\n    }",
}
"""Changes to the configuration that serve everything under /digits/."""

_MAIN = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/inkdigits.conf;
}}
"""


@contextlib.contextmanager
def nginx_before(
    upstream: int, folder: Path, changes: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run nginx before a service on this machine's port; gives nginx's own port.

    Args:
        upstream: port of the service.
        folder: for its files.
        changes: texts of the configuration and what replaces them; each must be there.
    """
    if NGINX is None:
        pytest.skip("needs nginx")
    port = free_port()
    site = CONFIGURATION.read_text(encoding="utf-8")
    ours = {"web:5000": f"127.0.0.1:{upstream}", "listen 8080": f"listen 127.0.0.1:{port}"}
    for text, replacement in {**ours, **(changes or {})}.items():
        assert text in site, f"{text!r} is not in the configuration"
        site = site.replace(text, replacement)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "inkdigits.conf").write_text(site, encoding="utf-8")
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user=user), encoding="utf-8")
    command = [NGINX, "-c", folder / "nginx.conf", "-e", folder / "error.log"]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    process = subprocess.Popen(command, **streams)

    def accepts() -> bool:
        assert process.poll() is None, (folder / "error.log").read_text(encoding="utf-8")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(accepts)
        yield port
    finally:
        process.terminate()
        process.wait(60)
