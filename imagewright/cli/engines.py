"""The builders that this machine may have, ready to be asked."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from imagewright.builders import AUTO, Builder
from imagewright.builders.buildah import Buildah, buildah
from imagewright.builders.buildkit import BuildKit, buildkit
from imagewright.builders.copy import Copy
from imagewright.builders.docker import Docker
from imagewright.catalogue import Source
from imagewright.cli import Place
from imagewright.names import is_loopback
from imagewright.registry.client import Client
from imagewright.settings import Settings


@contextmanager
def engines(settings: Settings, place: Place, client: Client, sources: Iterable[Source]) -> Iterator[Sequence[Builder]]:
    """The builders in the order in which `auto` tries them; an engine that was started here ends with the block.

    sources: what is to be built; without a Dockerfile among them there is no need for an engine.
    """
    copy = Copy(client)
    wanted = settings.builder
    if wanted == copy.name or not any(one.dockerfile for one in sources):
        yield [copy]
        return
    builders: list[Builder] = []
    with ExitStack() as stack:
        # What nobody would ask is not started.
        if wanted in (AUTO, BuildKit.name):
            builders.append(stack.enter_context(buildkit(place.environ, plain_http=_plain(settings))))
        if wanted in (AUTO, Docker.name):
            builders.append(Docker(place.environ))
        if wanted in (AUTO, Buildah.name):
            builders.append(stack.enter_context(buildah(place.environ, plain_http=_plain(settings))))
        yield [*builders, copy]


def _plain(settings: Settings) -> list[str]:
    """The registries that are spoken to in plain HTTP."""
    named = [settings.repository, settings.bases.repository, settings.images.repository]
    hosts = {*(one.host for one in named if one), *settings.registries}
    return sorted(host for host in hosts if settings.host(host).plain_http or is_loopback(host))
