"""Laws of the verdict, over worlds that nobody thought of: a second opinion agrees, and no fault makes anything better.

With `--proof` there are thousands of examples.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from imagewright.catalogue import Catalogue, Tool
from imagewright.documents import DOCKER_LIST, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from imagewright.names import Digest, Reference, Repository, Tag, digest_of
from imagewright.registry import answers
from imagewright.registry.answers import Absent, Answer, Document, NotModified, Trouble
from imagewright.resolve import Documents
from imagewright.settings import BasesSettings, Limits, Settings
from imagewright.snapshot import BaseSeen, Missing, Pointer, Published, Reading, Snapshot, TargetSeen
from imagewright.testing import vices
from imagewright.testing.registry import Registry
from imagewright.testing.vices import Asked, Vice
from imagewright.verdict import State, Verdict
from tests import oracle
from tests.judging import judged
from tests.vicious import AMD, World, publish

BASES, TOOLS = Repository("ghcr.io", "own/bases"), Repository("ghcr.io", "own/tools")
BASE, IMAGE, LATEST = (
    BASES.tagged(Tag("fedora-latest")),
    *(TOOLS.tagged(Tag(f"codex-fedora-{one}")) for one in ("1.0", "latest")),
)
CATALOGUE = Catalogue(
    root=Path(),
    settings=Settings(repository=TOOLS, bases=BasesSettings(repository=BASES, discover=False, names=("fedora",))),
    tools=(Tool(name="codex", folder=Path("tools/codex")),),
    hash="",
)
(PAIR,), _ = CATALOGUE.targets(("fedora",))


@dataclass
class Store:
    """What a registry holds, raw, as the second opinion reads it."""

    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def blob(self, document: object) -> dict[str, Any]:
        body = json.dumps(document).encode()
        self.blobs[digest_of(body)] = body
        return {"mediaType": OCI_CONFIG, "digest": digest_of(body), "size": len(body)}

    def manifest(self, document: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps(document).encode()
        self.manifests[digest_of(body)] = body
        return {"mediaType": document["mediaType"], "digest": digest_of(body), "size": len(body)}

    def index(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        return self.manifest({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})

    def image(self, one: "Made") -> dict[str, Any]:
        members = {"os": "linux", "architecture": one.architecture}
        config: dict[str, Any] = {**members, "rootfs": {"diff_ids": [digest_of(x.encode()) for x in one.layers]}}
        if one.steps is not None:
            config["history"] = [
                {"created_by": by, **({"empty_layer": True} if by.startswith("ENV") else {})} for by in one.steps
            ]
        blobs = [f"{one.recompressed}{x}" for x in one.layers][: len(one.layers) - one.lost_layers]
        layers = [{"mediaType": OCI_LAYER_GZIP, "digest": digest_of(x.encode()), "size": 7} for x in blobs]
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": self.blob(config), "layers": layers}
        entry = self.manifest(manifest)
        return entry | ({"platform": members} if one.stated else {})


@dataclass(frozen=True)
class Made:
    """One platform's image. layers: a letter each. steps: of its history, None for no history."""

    architecture: str
    layers: tuple[str, ...]
    steps: tuple[str, ...] | None
    recompressed: str = ""
    lost_layers: int = 0
    stated: bool = True


ARCHITECTURES = ("amd64", "arm64")
PLAIN = {"os": "linux", "architecture": "amd64"}
letters = st.sampled_from("abc")


@st.composite
def images(draw: st.DrawFn, below: tuple[Made, ...] | None) -> tuple[Made, ...]:
    """The images of a base, or of what is built on one, mostly in order."""
    made = []
    named = draw(st.sampled_from([ARCHITECTURES] * 6 + [("amd64",), ("arm64", "amd64"), ("amd64", "riscv64"), ()]))
    with_history = draw(st.booleans())
    for architecture in named:
        under = next((one for one in below or () if one.architecture == architecture), None)
        base = under.layers if under else tuple(draw(st.lists(letters, min_size=1, max_size=3)))
        base_steps = (
            (under.steps or ()) if under else (*(f"COPY {x}" for x in base), *draw(st.sampled_from([(), ("ENV A=1",)])))
        )
        own = ("own",) if below is not None else ()
        what = draw(
            st.sampled_from(
                ["right"] * 36
                + ["moved", "turned", "none", "bare base", "fewer", "env", "recompressed", "unstated", "lost layer"]
            )
        )
        layers = {
            "moved": ("x", *base[1:], *own),
            "turned": (*reversed(base), *own),
            "none": (),
            "bare base": base,
            "fewer": base[:-1] + own,
        }.get(what, base + own)
        steps = (*base_steps, *(f"COPY {x}" for x in own))
        if what in ("moved", "turned", "none", "bare base", "fewer"):
            steps = tuple(f"COPY {x}" for x in layers)
        elif what == "env":
            steps = ("ENV B=2", *steps)
        made.append(
            Made(
                architecture=architecture,
                layers=layers,
                steps=steps if with_history else None,
                recompressed="gz" if what == "recompressed" else "",
                lost_layers=1 if what == "lost layer" else 0,
                stated=what != "unstated",
            )
        )
    return tuple(made)


@st.composite
def stores(draw: st.DrawFn) -> Store:
    """A registry with a base and an image on it, and perhaps one thing wrong with what it holds."""
    store = Store()
    base = draw(images(None))
    image = draw(images(base))
    store.tags["base"] = draw(trees(store, base))
    if draw(st.sampled_from([True] * 9 + [False])):
        store.tags["image"] = draw(trees(store, image))
        if latest := draw(st.sampled_from([store.tags["image"]] * 18 + [store.tags["base"], ""])):
            store.tags["latest"] = latest
    draw(damage(store))
    if draw(st.sampled_from([False] * 19 + [True])):
        del store.tags["base"]
    return store


@st.composite
def trees(draw: st.DrawFn, store: Store, made: tuple[Made, ...]) -> str:
    """The digest of an index over images, or of what else may stand under a tag."""
    entries = [store.image(one) for one in made]
    shape = draw(
        st.sampled_from(
            ["index"] * 24
            + [
                "nested",
                "deep",
                *["bare"] * 5,
                "attested",
                "twice",
                "twins",
                "foreign",
                "foreign platform",
                "called",
                "size",
            ]
        )
    )
    if shape == "bare" and entries:
        return str(entries[0]["digest"])
    if shape == "attested" and entries:
        entries.append(store.image(Made("unknown", ("s",), None)) | {"annotations": {"vnd.docker.reference.type": "x"}})
        entries.append(entries[-1] | {"annotations": {}, "platform": {"os": "unknown", "architecture": "unknown"}})
    if shape == "twice" and entries:
        entries.append(entries[0])
    if shape == "twins" and entries:
        twin = store.image(Made(made[0].architecture, ("twin",), None)) | {
            "platform": entries[0].get("platform") or PLAIN
        }
        entries.insert(draw(st.sampled_from([0, len(entries)])), twin)
    if shape == "foreign":
        entries.append({"mediaType": "application/x.future", "digest": digest_of(b"future"), "size": 7})
    if shape in ("foreign platform", "called") and entries:
        kinds = ["application/x.future"] if shape == "foreign platform" else [OCI_INDEX, DOCKER_LIST, DOCKER_MANIFEST]
        entries[0] = entries[0] | {"mediaType": draw(st.sampled_from(kinds))}
    if shape == "size" and entries:
        entries[-1] = entries[-1] | {"size": entries[-1]["size"] + draw(st.sampled_from([-1, 1]))}
    top = store.index(entries)
    for _ in range({"nested": 1, "deep": draw(st.integers(2, 4))}.get(shape, 0)):
        top = store.index([top | draw(st.sampled_from([{}] * 4 + [{"mediaType": OCI_MANIFEST}, {"size": 7}]))])
    return str(top["digest"])


@st.composite
def damage(draw: st.DrawFn, store: Store) -> None:
    """Loses or changes one document, or none."""
    what = draw(st.sampled_from(["nothing"] * 9 + ["lose", "lose", "change"]))
    held = draw(st.sampled_from([store.manifests, store.blobs]))
    tagged = set(store.tags.values())
    digests = sorted(one for one in held if one not in tagged)
    if what == "nothing" or not digests:
        return
    digest = draw(st.sampled_from(digests))
    if what == "lose":
        del held[digest]
    else:
        held[digest] += b" "


def answer(body: bytes | None, media_type: str) -> Answer:
    """What a registry says that has such a body, or has none."""
    if body is None:
        error = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN"}]}).encode()
        return Answer(status=404, headers={"content-type": "application/json"}, body=error)
    return Answer(status=200, headers={"content-type": media_type}, body=body)


CODES = ("MANIFEST_UNKNOWN", "BLOB_UNKNOWN")


def looked(store: Store) -> tuple[Documents, dict[Reference, str]]:
    """All documents that the survey would ask for, as the registry answers."""
    names = {BASE: "base", IMAGE: "image", LATEST: "latest"}
    documents = Documents()
    roots = [BASE, IMAGE]
    while any(wave := documents.needed(roots)):
        for reference in wave[0]:
            digest = reference.digest or store.tags.get(names.get(reference, ""))
            body = store.manifests.get(digest) if digest else None
            documents.put_manifest(reference, _said(answer(body, ""), reference.digest))
        for reference in wave[1]:
            documents.put_config(reference, _said(answer(store.blobs.get(str(reference.digest)), ""), reference.digest))
    return documents, {reference: store.tags[name] for reference, name in names.items() if name in store.tags}


def _said(given: Answer, asked: Digest | None) -> Document | Absent | Trouble:
    found = answers.content(given, asked, CODES)
    assert not isinstance(found, NotModified)
    return found


def verdict_of(store: Store) -> tuple[State, set[str]]:
    """The verdict of the real path."""
    documents, tags = looked(store)
    seen = documents.observation(IMAGE)
    latest: Pointer | Missing | None = None
    if isinstance(seen, Published):
        latest = (
            Pointer(reference=LATEST, digest=Digest(tags[LATEST]))
            if LATEST in tags
            else Missing(reference=LATEST, code="X")
        )
    snapshot = Snapshot(
        catalogue="",
        taken="",
        base_names=("fedora",),
        readings=(Reading(tool="codex", version="1.0"),),
        bases=(BaseSeen(name="fedora", observation=documents.observation(BASE)),),
        targets=(
            TargetSeen(target=PAIR.key, tool="codex", base="fedora", version="1.0", observation=seen, latest=latest),
        ),
    )
    found = judged(snapshot, CATALOGUE, (PAIR,))[PAIR.key]
    return found.state, {one.code.code for one in found.reasons}


@pytest.fixture(scope="module")
def proof(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--proof"))


def run(law: Any, examples: int) -> None:
    """Tries a law on so many examples."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    phases = [Phase.explicit, Phase.generate, Phase.shrink]
    settings(max_examples=examples, deadline=None, suppress_health_check=checks, phases=phases, derandomize=True)(law)()


@pytest.mark.timeout(600)
def test_a_second_opinion_agrees_on_every_tree(proof: bool) -> None:
    heard: Counter[str] = Counter()

    @given(stores())
    def law(store: Store) -> None:
        opinion = oracle.judge({"manifests": store.manifests, "blobs": store.blobs, "tags": store.tags})
        state, codes = verdict_of(store)
        if isinstance(opinion, str):
            assert state.value == opinion, (opinion, state, codes)
        else:
            assert (state, codes) == (State.STALE, opinion), (opinion, state, codes)
        heard[state.value] += 1
        heard.update(codes if state is State.STALE else ())

    run(law, 5_000 if proof else 150)
    total = sum(heard[one.value] for one in State)
    print(f"\n{total} trees: {dict(heard)}")
    assert all(heard[one.value] >= total // 10 for one in State), heard
    assert not proof or {one for one, count in heard.items() if count >= total // 250} >= TREE_CODES, heard


TREE_CODES = {
    *("image-missing", "child-missing", "platform-missing", "not-multiarch", "latest-behind"),
    *("base-changed", "base-config", "base-layers-missing", "no-own-layers"),
}
"""Every reason for being stale that a tree of documents can give."""


# Monotonicity

FAULTS = (
    vices.hangs_up(),
    vices.answers(400),
    vices.answers(451),
    vices.refuses(401),
    vices.refuses(403),
    vices.is_overloaded(429),
    vices.is_overloaded(503),
    vices.answers_404_as_html(),
    vices.answers_404_as_text(),
    vices.answers_404_as_json("NOT_FOUND"),
    vices.serves_a_login_page(),
    vices.serves_nothing(),
    vices.serves_nothing(204),
    vices.serves_a_part(),
    vices.cuts_the_body(),
    vices.cuts_the_body(admits=True),
    vices.lies_about_digest(),
    vices.serves_other_bytes(),
    vices.redirects("https://elsewhere.invalid/"),
    vices.redirects_in_a_loop(),
)
"""What may be wrong with an answer. A registry's own 404 is none of them: where a tag is denied twice, its list does not
name it, and what vouches for the registry holds, it is evidence, be it ever so wrong."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """With a target that is fresh, and some that are stale: on an old base, without `latest`, with a hole, not there."""
    with Registry(tmp_path_factory.mktemp("laws")) as made:
        put = partial(publish, made.sink, bases=["fedora"], platforms=[AMD])
        put(["codex", "crush", "goose"], old=["crush-fedora"])
        put(["aider"], tags=["1.0"])
        holed = put(["gemini"], labels={"x": "y"})["gemini-fedora"]
        place = made.store.repository("own/tools")
        children = json.loads(place.blob(holed).read_bytes())["manifests"]
        place.blob(Digest(children[0]["digest"])).unlink()
        yield made


PATIENT = Limits(connect=1, read=1, total=0.24)
"""As long as can be without a retry: the shortest pause before one is 0.25 s."""
FAULTS_AT_ONCE = 3
"""One after the other; each that is added is an example."""
VERSIONS = {"codex": "1.0", "crush": "1.0", "aider": "1.0", "gemini": "1.0", "goose": "2.0"}
TOLD = {
    "codex-fedora": "fresh",
    "crush-fedora": "stale: base-changed",
    "aider-fedora": "stale: latest-behind",
    "gemini-fedora": "stale: child-missing",
    "goose-fedora": "stale: image-missing",
}


@pytest.mark.timeout(900)
def test_a_fault_more_makes_verdicts_unknown_and_nothing_else(registry: Registry, proof: bool) -> None:
    world = World(registry=registry, versions=VERSIONS, bases=["fedora"], limits=PATIENT)
    registry.becomes()
    assert world.told() == TOLD
    questions = sorted({one.target for one in registry.log})
    turned: Counter[str] = Counter()
    faults = st.tuples(st.sampled_from(questions), st.sampled_from(FAULTS))

    def states(given: Sequence[tuple[str, Vice]]) -> dict[str, State]:
        for _ in range(5):
            registry.becomes(*(vice.where(partial(_is_for, question)) for question, vice in given))
            found = world.verdicts()
            if not any(_is_late(one) for one in found.values()):
                break
        return {target: verdict.state for target, verdict in found.items()}

    def better(before: dict[str, State], after: dict[str, State]) -> dict[str, State]:
        return {one: state for one, state in after.items() if state not in (before[one], State.UNKNOWN)}

    honest = states([])

    @given(st.lists(faults, min_size=FAULTS_AT_ONCE, max_size=FAULTS_AT_ONCE))
    def law(given: list[tuple[str, Vice]]) -> None:
        before = honest
        for count in range(1, FAULTS_AT_ONCE + 1):
            after = states(given[:count])
            for _ in range(2):  # a busy machine makes something unknown now and then; what breaks the law stays
                if better(before, after):
                    before, after = states(given[: count - 1]), states(given[:count])
            assert not better(before, after), f"before {given[count - 1]} it was {before}"
            turned.update(f"{before[target].value} → {state.value}" for target, state in after.items())
            before = after

    run(law, (2_000 if proof else 30) // FAULTS_AT_ONCE + 1)
    print(f"\n{sum(turned.values())} verdicts, {len(TOLD)} for each fault added: {dict(turned)}")
    assert sum(turned.values()) >= len(TOLD) * (2_000 if proof else 30)
    assert turned["fresh → unknown"]
    assert turned["stale → unknown"]


def _is_late(verdict: Verdict) -> bool:
    """Whether it comes of a machine that is busy: none of the faults keeps anybody waiting."""
    return any(words in reason.detail for reason in verdict.reasons for words in ("in time", "silent for", "within"))


def _is_for(question: str, asked: Asked) -> bool:
    return asked.target == question
