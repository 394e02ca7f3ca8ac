"""Two writers of one target, their steps in every order: readers never see a hole, and `latest` goes backwards in one case.

No registry has compare-and-swap: where both read `latest` before either moves it, the last one to write wins. Then the
checks say so, and the next plan moves it again. `-s` shows how often that was.
"""

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import pytest

from imagewright.embedded.store import Store
from imagewright.embedded.wire import Answer
from imagewright.errors import Failed
from imagewright.publish import Work, move_latest, push
from imagewright.registry.client import Client
from imagewright.settings import Limits, Surroundings
from imagewright.testing import images
from imagewright.testing.images import Picture, StoreSink, layer
from imagewright.testing.registry import Registry
from imagewright.testing.vices import Asked, Occasion, Vice
from tests.readers import named, readers_see
from tests.vicious import AMD, World, below

LABEL, LATEST = "org.opencontainers.image.version", "codex-fedora-latest"
OLDER, NEWER = "1.5", "2.0"
STEPS = 6
"""Of each writer: it sends the image, the index and the version's tag, reads `latest`, moves it, and reads it again."""
SENDS, READS, MOVES = 3, 4, 5
PATIENT = Limits(read=60, total=60)
"""A writer waits for its turn."""
ORDERS = [
    tuple(NEWER if at in newer else OLDER for at in range(2 * STEPS)) for newer in combinations(range(2 * STEPS), STEPS)
]


class Turns:
    """Lets the steps of two writers through in one order. place: the folder of the repository that they write to."""

    def __init__(self, order: tuple[str, ...], place: Path) -> None:
        self.order, self.place = list(order), place
        self.here: set[str] = set()
        self.taken: list[tuple[str, int]] = []
        self.latest: list[str] = []
        self.holes: list[str] = []
        self.turn = threading.Condition()

    def vice(self, writer: str) -> Vice:
        """Makes a writer wait for its turns. The first begins when both are about to write."""

        def is_step(asked: Asked) -> bool:
            return asked.kind == "push" or (asked.reference == LATEST and self.steps_of(writer) >= SENDS)

        def waits(occasion: Occasion) -> Answer:
            with self.turn:
                self.here.add(writer)
                self.turn.notify_all()
                if not self.turn.wait_for(lambda: len(self.here) > 1 and self.order[0] == writer, timeout=60):
                    raise ConnectionError
                answer = occasion.honest()
                self.order.pop(0)
                self.taken.append((writer, self.steps_of(writer) + 1))
                self.latest.append(named(self.place)[LATEST])
                whole = "whole, 1 platforms"
                self.holes += [f"{tag} is {what}" for tag, what in readers_see(self.place).items() if what != whole]
                self.turn.notify_all()
                return answer

        return Vice(name="waits", does=waits).where(is_step)

    def steps_of(self, writer: str) -> int:
        """How many a writer has done."""
        return sum(one == writer for one, _ in self.taken)

    def leaves(self, writer: str) -> None:
        """A writer that has come to its end takes no more turns."""
        with self.turn:
            self.here |= {writer, "gone"}
            self.order = [one for one in self.order if one != writer]
            self.turn.notify_all()

    def races(self) -> bool:
        """Whether both read `latest` before either moved it, and the newer version's writer moved it first."""
        at = {step: number for number, step in enumerate(self.taken)}
        moves = [at.get((one, MOVES)) for one in (NEWER, OLDER)]
        if None in moves or max(at[NEWER, READS], at[OLDER, READS]) > min(moves):
            return False
        return moves[0] < moves[1]


def _layout(path: Path, picture: Mapping[str, Picture]) -> None:
    """Leaves an image as a builder does: at the top of its layout there is the index alone."""
    digest = images.push(StoreSink(Store(path.parent)), path.name, ["built"], picture)
    file = path / "index.json"
    document = json.loads(file.read_bytes())
    document["manifests"] = [one for one in document["manifests"] if one["digest"] == digest]
    file.write_text(json.dumps(document))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(4))
def test_two_writers_leave_no_hole_in_any_order_and_latest_goes_backwards_in_a_race_only(
    part: int, tmp_path: Path
) -> None:
    root, layouts = tmp_path / "registry", tmp_path / "layouts"
    base = below("fedora", [AMD])
    made = {
        version: {AMD: base[AMD].on_top(layer({"bin/codex": version}), labels={LABEL: version})}
        for version in ("1.0", OLDER, NEWER)
    }
    for version in (OLDER, NEWER):
        _layout(layouts / version, made[version])

    with Registry(root) as one, Registry(root) as another, ThreadPoolExecutor(2) as pool:
        images.push(one.sink, "own/bases", ["fedora-latest"], base)

        def write(version: str, registry: Registry, turns: Turns, repository: str) -> None:
            versions = {"codex": version}
            world = World(registry=registry, versions=versions, bases=["fedora"], repository=repository, limits=PATIENT)
            (target,) = world.targets
            assert target.base
            registry.becomes(turns.vice(version))
            work = Work(target=target, version=version, base=target.base.reference, layouts=[layouts / version])
            try:
                with Client(world.catalogue.settings, Surroundings()) as client:
                    move_latest(client, push(client, work))
            except Failed:
                pass
            finally:
                turns.leaves(version)

        wrong, backwards, behind = [], 0, 0
        orders = ORDERS[part::4]
        for number, order in enumerate(orders):
            repository = f"own/tools-{number}"
            images.push(one.sink, repository, ["codex-fedora-1.0", LATEST], made["1.0"])
            turns = Turns(order, root / repository.replace("/", "+"))
            ended = [
                pool.submit(write, version, registry, turns, repository)
                for version, registry in ((NEWER, one), (OLDER, another))
            ]
            for writer in ended:
                writer.result()
            names = named(turns.place)
            newest = names[f"codex-fedora-{NEWER}"]
            went_back = newest in turns.latest and turns.latest[-1] != newest
            one.becomes()
            told = World(registry=one, versions={"codex": NEWER}, bases=["fedora"], repository=repository).told()
            expected = "fresh" if names[LATEST] == newest else "stale: latest-behind"
            backwards, behind = backwards + went_back, behind + (expected != "fresh")
            if turns.holes or went_back is not turns.races() or told != {"codex-fedora": expected}:
                wrong.append(f"{turns.taken}: {turns.holes}, backwards: {went_back}, {told}")
    print(f"\n{len(orders)} orders of two writers: latest behind in {behind}, backwards in {backwards}")
    assert not wrong, "\n".join(wrong[:5])
    assert backwards
