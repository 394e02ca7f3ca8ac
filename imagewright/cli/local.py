"""What was built, in the hands of the container engine of this machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from imagewright import archive, containers
from imagewright.errors import Failed
from imagewright.layout import Layout
from imagewright.names import Platform


def load(layout: Path, name: str, environ: Mapping[str, str]) -> str:
    """Gives the image of this machine's platform to docker, else podman, under `name`; what was done, one clause."""
    engine = containers.find(environ)
    if isinstance(engine, str):
        raise Failed(f"{name} cannot be loaded: {engine}", remedy="Install docker or podman, or build without --load.")
    with archived(layout, engine.platform, name) as file:
        if why := containers.load(engine, file):
            raise Failed(f"{name}: {why}", remedy=f"See whether {engine.name} works here, and has room.")
    return f"{engine.name} has {name} ({engine.platform})"


@contextmanager
def archived(layout: Path, platform: Platform, name: str) -> Iterator[Path]:
    """One platform of a layout as a docker archive, for as long as the block lasts. `Failed` if it cannot be made."""
    with TemporaryDirectory(prefix="imagewright-archive-") as folder:
        file = Path(folder) / "image.tar"
        try:
            archive.write(Layout(layout), platform, name, file)
        except OSError as error:  # a full disk
            raise Failed(f"{name} cannot be written to {folder}: {error.strerror}") from None
        yield file
