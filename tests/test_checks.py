"""Each check of `checks/`, called as a function with values: nothing to object to, stale, unknown, not asked."""

import importlib.util
from pathlib import Path

import pytest

from imagewright import reasons
from imagewright.catalogue import Base, Pair, Tool
from imagewright.documents import OCI_INDEX, OCI_MANIFEST, HistoryEntry
from imagewright.names import Platform, digest_of, make_repository
from imagewright.recipe import Recipes, recipe
from imagewright.snapshot import Gone, Image, Missing, Pointer, Published, Unreachable
from imagewright.verdict import NotAsked, Reason, Stale, Unknown

CHECKS = Path(__file__).parents[1] / "checks"
AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")
OWN = make_repository("ghcr.io", "own/tools")
BASES = make_repository("ghcr.io", "own/bases")


def load(name):
    spec = importlib.util.spec_from_file_location(f"checks_{name}", CHECKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def digest(name):
    return digest_of(name.encode())


def image(layers, platform=AMD, *, labels=None, history=None):
    """layers: a letter each."""
    return Image(
        platform=platform,
        digest=digest(f"manifest {layers}"),
        config=digest(f"config {layers}"),
        layers=tuple(digest(f"blob {one}") for one in layers),
        diff_ids=tuple(digest(one) for one in layers),
        history=history,
        labels=labels or {},
        created="",
    )


def published(*images, is_index=True, **members):
    return Published(
        reference=OWN.tagged("codex-fedora-1.0"),
        digest=digest("index"),
        media_type=OCI_INDEX if is_index else OCI_MANIFEST,
        is_index=is_index,
        images=images,
        **members,
    )


def base(*images, **members):
    return Published(
        reference=BASES.tagged("fedora-latest"),
        digest=digest("base"),
        media_type=OCI_INDEX,
        is_index=True,
        images=images,
        **members,
    )


def pair(folder=Path("tools/codex"), **members):
    return Pair(
        tool=Tool(name="codex", folder=folder, **members),
        base=Base(name="fedora", reference=BASES.tagged("fedora-latest")),
        repository=OWN,
        declared=(AMD, ARM),
    )


def outcome(kind, check, *arguments):
    with pytest.raises(kind) as caught:
        check(*arguments)
    return list(caught.value.reasons) or str(caught.value)


BASE = base(image("a"), image("b", ARM))
GOOD = published(image("ax"), image("bx", ARM))


def test_every_check_is_called_here():
    called = {name.removeprefix("test_the_check_").split("__")[0] for name in globals() if "test_the_check_" in name}
    assert called == {path.stem.removeprefix("test_") for path in CHECKS.glob("test_*.py")}


def test_the_check_exists__is_content_with_a_whole_image():
    assert load("test_exists")(pair(), GOOD, BASE, "") is None


def test_the_check_exists__finds_an_image_that_is_missing():
    missing = Missing(reference=OWN.tagged("codex-fedora-1.0"), code="MANIFEST_UNKNOWN")
    assert outcome(Stale, load("test_exists"), pair(), missing, BASE, "") == [
        Reason(
            code=reasons.Stale.IMAGE_MISSING,
            expected="ghcr.io/own/tools:codex-fedora-1.0",
            detail="the registry has no codex-fedora-1.0",
        )
    ]


def test_the_check_exists__finds_every_hole():
    holes = published(image("ax"), gone=(Gone(platform=ARM, digest=digest("hole")),))
    assert outcome(Stale, load("test_exists"), pair(), holes, BASE, "") == [
        Reason(code=reasons.Stale.CHILD_MISSING, platform="linux/arm64", expected=digest("hole"))
    ]


def test_the_check_exists__does_not_know_what_could_not_be_reached():
    lost = Unreachable(reference=OWN.tagged("x"), reason=reasons.Unknown.AUTH, detail="status 403")
    assert outcome(Unknown, load("test_exists"), pair(), lost, BASE, "") == [
        Reason(code=reasons.Unknown.AUTH, detail="status 403")
    ]


def test_the_check_exists__builds_nothing_on_a_base_that_cannot_be_read():
    missing = Missing(reference=OWN.tagged("codex-fedora-1.0"), code="MANIFEST_UNKNOWN")
    no_base = Missing(reference=BASES.tagged("fedora-latest"), code="MANIFEST_UNKNOWN")
    assert outcome(Unknown, load("test_exists"), pair(), missing, no_base, "") == [
        Reason(
            code=reasons.Unknown.BASE_UNREADABLE,
            detail="ghcr.io/own/bases:fedora-latest is not there (MANIFEST_UNKNOWN)",
        )
    ]


def test_the_check_exists__is_content_with_an_image_that_is_built_on_nothing():
    assert load("test_exists")(pair(), GOOD, None, "") is None


def test_the_check_exists__lets_a_target_wait_for_a_base_of_our_own():
    missing = Missing(reference=OWN.tagged("codex-fedora-1.0"), code="MANIFEST_UNKNOWN")
    no_base = Missing(reference=BASES.tagged("fedora-latest"), code="MANIFEST_UNKNOWN")
    for looked in (missing, GOOD):
        assert outcome(Stale, load("test_exists"), pair(), looked, no_base, "fedora") == [
            Reason(
                code=reasons.Stale.BASE_MISSING,
                expected="fedora",
                detail="fedora is an image of this project and not published yet",
            )
        ]


def test_the_check_platforms__is_content_with_all_of_the_bases_and_with_more():
    check = load("test_platforms")
    assert check(GOOD, (AMD, ARM)) is None
    assert check(GOOD, (AMD,)) is None
    assert check(published(image("ax"), is_index=False), (AMD,)) is None


def test_the_check_platforms__names_each_that_is_absent():
    assert outcome(Stale, load("test_platforms"), published(image("ax")), (AMD, ARM)) == [
        Reason(code=reasons.Stale.PLATFORM_MISSING, platform="linux/arm64")
    ]


def test_the_check_platforms__finds_one_manifest_where_an_index_must_be():
    single = published(image("ax"), is_index=False)
    assert outcome(Stale, load("test_platforms"), single, (AMD, ARM)) == [
        Reason(code=reasons.Stale.NOT_MULTIARCH, expected="linux/amd64, linux/arm64", found=OCI_MANIFEST)
    ]


def test_the_check_contains_base__is_content_on_todays_base():
    assert load("test_contains_base")(pair(), GOOD, BASE, (AMD, ARM)) is None


def test_the_check_contains_base__names_the_platform_whose_base_moved_first():
    moved = base(image("a"), image("c", ARM))
    assert outcome(Stale, load("test_contains_base"), pair(), GOOD, moved, (AMD, ARM)) == [
        Reason(
            code=reasons.Stale.BASE_CHANGED,
            platform="linux/arm64",
            expected=digest("c"),
            found=digest("b"),
            detail="layer 1 of 1 of the base is another one",
        )
    ]


def test_the_check_contains_base__asks_a_squashed_image_for_its_label():
    check, squashed = load("test_contains_base"), pair(squashed=True)
    label = "org.opencontainers.image.base.digest"
    assert check(squashed, published(image("q", labels={label: digest("base")})), BASE, (AMD,)) is None
    assert outcome(Stale, check, squashed, published(image("q", labels={label: digest("old")})), BASE, (AMD,)) == [
        Reason(code=reasons.Stale.BASE_CHANGED, expected=digest("base"), found=digest("old"))
    ]
    assert outcome(NotAsked, check, squashed, published(image("q")), BASE, (AMD,)) == (
        "a squashed image without the label org.opencontainers.image.base.digest"
    )


LAYER, ENV, OTHER_ENV = HistoryEntry("COPY", False), HistoryEntry("ENV A=1", True), HistoryEntry("ENV A=2", True)
CONFIGURED = base(image("a", history=(LAYER, ENV)))


def test_the_check_base_config__is_content_with_the_bases_steps():
    assert (
        load("test_base_config")(pair(), published(image("ax", history=(LAYER, ENV, LAYER))), CONFIGURED, (AMD,))
        is None
    )


def test_the_check_base_config__names_the_step_that_changed():
    other = published(image("ax", history=(LAYER, OTHER_ENV, LAYER)))
    assert outcome(Stale, load("test_base_config"), pair(), other, CONFIGURED, (AMD,)) == [
        Reason(
            code=reasons.Stale.BASE_CONFIG,
            platform="linux/amd64",
            expected="ENV A=1",
            found="ENV A=2",
            detail="step 2 of the base's history is another one",
        )
    ]


def test_the_check_base_config__is_not_asked_where_nothing_can_be_compared():
    check = load("test_base_config")
    other = published(image("ax", history=(LAYER, OTHER_ENV, LAYER)))
    kept = "tool.yaml says that this tool keeps nothing of its base's history"
    assert outcome(NotAsked, check, pair(squashed=True), other, CONFIGURED, (AMD,)) == kept
    assert outcome(NotAsked, check, pair(check_base_config=False), other, CONFIGURED, (AMD,)) == kept
    silent = published(image("ax"))
    assert (
        outcome(NotAsked, check, pair(), silent, CONFIGURED, (AMD,)) == "the histories do not account for every layer"
    )


VERSION = "org.opencontainers.image.version"


def test_the_check_version_label__compares_what_the_image_itself_says():
    check = load("test_version_label")
    fedora = base(image("a", labels={VERSION: "40"}), image("b", ARM))
    right = published(image("ax", labels={VERSION: "1.0"}), image("bx", ARM, labels={VERSION: "1.0"}))
    assert check("1.0", right, fedora) is None
    assert outcome(Stale, check, "1.1", right, fedora) == [
        Reason(code=reasons.Stale.VERSION_LABEL, platform="linux/amd64", expected="1.1", found="1.0"),
        Reason(code=reasons.Stale.VERSION_LABEL, platform="linux/arm64", expected="1.1", found="1.0"),
    ]
    inherited = published(image("ax", labels={VERSION: "40"}))
    assert outcome(NotAsked, check, "1.0", inherited, fedora) == f"the image has no label {VERSION} of its own"


def test_the_check_latest__wants_the_digest_of_todays_version():
    check, at = load("test_latest"), OWN.tagged("codex-fedora-latest")
    assert check(GOOD, Pointer(reference=at, digest=digest("index"))) is None
    assert outcome(Stale, check, GOOD, Pointer(reference=at, digest=digest("old"))) == [
        Reason(code=reasons.Stale.LATEST_BEHIND, expected=digest("index"), found=digest("old"))
    ]
    assert outcome(Stale, check, GOOD, Missing(reference=at, code="MANIFEST_UNKNOWN")) == [
        Reason(code=reasons.Stale.LATEST_BEHIND, expected=digest("index"), found="no such tag")
    ]
    late = Unreachable(reference=at, reason=reasons.Unknown.TIMEOUT, detail="silence")
    assert outcome(Unknown, check, GOOD, late) == [Reason(code=reasons.Unknown.TIMEOUT, detail="`latest`: silence")]


def test_the_check_recipe__compares_the_label_with_todays_files(tmp_path):
    check, recipes, label = load("test_recipe"), Recipes("imagewright"), "imagewright.recipe"
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    one = pair(tmp_path, dockerfile=tmp_path / "Dockerfile")
    today = recipe(one.tool, "buildkit")
    assert check(one, recipes, published(image("ax", labels={label: today})), BASE) is None
    old = f"1:buildkit:{'0' * 64}"
    assert outcome(Stale, check, one, recipes, published(image("ax", labels={label: old})), BASE) == [
        Reason(code=reasons.Stale.RECIPE_CHANGED, platform="linux/amd64", expected=today, found=old)
    ]
    assert outcome(NotAsked, check, one, recipes, published(image("ax")), BASE) == (
        "the image has no label imagewright.recipe of its own"
    )
    for foreign in ("2:buildkit:x", "1:kaniko:x", f"1:copy:{'0' * 64}", "rubbish"):
        other = published(image("ax", labels={label: foreign}))
        assert outcome(NotAsked, check, one, recipes, other, BASE) == (
            "the recipe label is of another scheme or builder family"
        )
