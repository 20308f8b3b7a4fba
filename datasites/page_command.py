"""`sitegate page`: the review page, for people who do not live in terminals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datasites.command_line import SiteOption, say, told_plainly
from datasites.config import load_site


@told_plainly
def page(
    site: SiteOption = Path(),
    host: Annotated[
        str, typer.Option(help="Address to listen on; other machines reach it with --tls only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="TCP port.")] = 8450,
    tls: Annotated[bool, typer.Option("--tls", help="Serve it with the site's certificate.")] = (
        False
    ),
) -> None:
    """Serve the review page until SIGTERM or Ctrl-C."""
    from datasites.page.serving import page_settings, serve_page

    opened = load_site(site)
    settings = page_settings(opened, host, port, tls=tls)
    serve_page(
        opened,
        settings,
        lambda: say(f"{opened.config.title} · review page at {settings.url} · Ctrl-C ends it"),
    )
