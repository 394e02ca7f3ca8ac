"""The builders that this machine may have, ready to be asked."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from imagewright.builders import Builder
from imagewright.builders.buildah import buildah
from imagewright.builders.buildkit import buildkit
from imagewright.builders.copy import Copy
from imagewright.catalogue import Tool
from imagewright.cli import Place
from imagewright.names import is_loopback
from imagewright.registry.client import Client
from imagewright.settings import Settings


@contextmanager
def engines(settings: Settings, place: Place, client: Client, tools: Iterable[Tool]) -> Iterator[Sequence[Builder]]:
    """The builders in the order in which `auto` tries them; an engine that was started here ends with the block.

    tools: those to be built; without a Dockerfile among them there is no need for an engine.
    """
    copy = Copy(client)
    if settings.builder == "copy" or not any(tool.dockerfile for tool in tools):
        yield [copy]
        return
    hosts = {settings.repository.host, settings.bases.repository.host}
    plain = [host for host in hosts if settings.host(host).plain_http or is_loopback(host)]
    with buildah(place.environ, plain_http=plain) as daemonless:
        if settings.builder == daemonless.name:  # without a BuildKit that nobody would ask
            yield [daemonless, copy]
            return
        with buildkit(place.environ, plain_http=plain) as engine:
            yield [engine, daemonless, copy]
