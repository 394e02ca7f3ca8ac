"""`imagewright registry`."""

from pathlib import Path

import click

from imagewright.embedded.server import Server


@click.group()
def registry() -> None:
    """Serve the embedded registry: OCI layouts on disk behind the distribution API."""


@registry.command()
@click.option("--port", default=5050, type=click.IntRange(0, 65535), show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--root",
    default=Path("registry"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder.",
)
@click.option("--sparse", is_flag=True, help="Accept manifests of content that is not here, as a partial mirror has.")
def serve(port: int, host: str, root: Path, sparse: bool) -> None:
    """Serve a folder until interrupted.

    \b
    imagewright registry serve
    imagewright registry serve --port 5051 --root /srv/images
    """
    server = Server(root, port=port, host=host, sparse=sparse)
    click.echo(f"serving {root} at {server.address}; stop with Ctrl-C", err=True)
    try:
        server.serve_forever()
    finally:
        server.stop()
