"""Standalone images of a project, and the settings that came with them: what is read, and every mistake with its place."""

from pathlib import Path

import pytest

from imagewright.catalogue import Catalogue
from imagewright.errors import BadCatalogue
from imagewright.load import load_catalogue, load_settings
from imagewright.names import Platform, make_repository
from imagewright.settings import BuildSettings, Cache, ImagesSettings, VersionsSettings

SETTINGS = '[images]\nrepository = "own/images"\n'
TAG = (
    "images/c/image.yml: version: 'c-1+1' cannot be a tag: a tag consists of letters, digits, '_', '.', '-' and starts "
    "with none of the last two"
)
NAME = (
    "images/g/Dockerfile:1: 'library/Debian' is not a repository: lower-case words of letters and digits, joined by "
    "'.', '_', '-' and '/'"
)
DIGEST = f"sha256:{'1' * 64}"


def image(root: Path, name: str = "util", yaml: str = "version: 1.0\n", recipe: str = "FROM scratch\n") -> None:
    folder = root / "images" / name
    folder.mkdir(parents=True)
    (folder / "image.yml").write_text(yaml)
    (folder / "Dockerfile").write_text(recipe)


def load(root: Path, settings: str = SETTINGS) -> Catalogue:
    (root / "imagewright.toml").write_text(settings)
    return load_catalogue(root, {})


def mistakes(root: Path, settings: str = SETTINGS) -> list[str]:
    with pytest.raises(BadCatalogue) as refused:
        load(root, settings)
    return str(refused.value).split("\n")


def test_every_field_of_an_image_is_read(tmp_path: Path) -> None:
    yaml = (
        "version: 3.10\ntitle: Tools\ndescription: What it is\nlicenses: MIT\ncommand: npm --version\n"
        "platforms: [linux/arm64]\nbase: true\n"
    )
    image(tmp_path, "forest", yaml)
    (found,) = load(tmp_path).images
    assert (found.name, found.version, found.title, found.is_base) == ("forest", "3.10", "Tools", True)
    assert (found.description, found.licenses, found.command) == ("What it is", "MIT", "npm --version")
    assert found.platforms == (Platform("linux", "arm64"),)
    assert found.folder == tmp_path / "images" / "forest"


@pytest.mark.parametrize(
    ("recipe", "parent", "stands_for"),
    [
        ("FROM scratch\n", None, ""),
        ("FROM debian:12\n", "docker.io/library/debian:12", "debian:12"),
        ("FROM ghcr.io/own/base\n", "ghcr.io/own/base:latest", "ghcr.io/own/base"),
        ("ARG BASE_IMAGE=debian:12\nFROM ${BASE_IMAGE}\n", "docker.io/library/debian:12", ""),
        ("ARG OTHER=debian:12\nFROM ${OTHER}\n", "docker.io/library/debian:12", "debian:12"),
        (f"FROM debian:12@{DIGEST}\n", f"docker.io/library/debian@{DIGEST}", ""),
        (
            "FROM golang:1 AS made\nRUN true\nFROM debian:12\nCOPY --from=made /a /a\n",
            "docker.io/library/debian:12",
            "debian:12",
        ),
        ("FROM debian:12 AS first\nFROM first\nRUN true\n", "docker.io/library/debian:12", "debian:12"),
    ],
)
def test_an_image_names_its_base_in_its_dockerfile(
    tmp_path: Path, recipe: str, parent: str | None, stands_for: str
) -> None:
    image(tmp_path, recipe=recipe)
    (found,) = load(tmp_path).images
    assert (str(found.parent) if found.parent else None, found.stands_for) == (parent, stands_for)


def test_a_version_may_be_the_projects_and_is_part_of_the_catalogue(tmp_path: Path) -> None:
    image(tmp_path, yaml="version: project\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "0.4.0"\n')
    before = load(tmp_path)
    assert before.images[0].version == "0.4.0"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "0.5.0"\n')
    after = load(tmp_path)
    assert (after.images[0].version, after.hash != before.hash) == ("0.5.0", True)


def test_mistakes_in_all_images_are_named_at_once(tmp_path: Path) -> None:
    image(tmp_path, "a", "versoin: 1\n")
    image(tmp_path, "b", "version: project\n")
    image(tmp_path, "c", "version: 1+1\n")
    image(tmp_path, "d", recipe="RUN true\n")
    image(tmp_path, "e", "version: 1\nplatforms: []\n")
    (tmp_path / "images" / "f").mkdir()
    image(tmp_path, "g", recipe="FROM Debian\n")
    assert [line.split(" (")[0] for line in mistakes(tmp_path)] == [
        "images/a/image.yml:1:1: versoin: not a known field. Did you mean 'version'?",
        "images/a/image.yml: version: is not set; a version, or `project` for that of pyproject.toml",
        "images/b/image.yml: version: `project`, and pyproject.toml has no version under [project]",
        TAG,
        "images/d/Dockerfile:1: only ARG can stand before the first FROM, not 'RUN'",
        "images/e/image.yml: platforms: an empty list means that nothing is published",
        "images/f: there is no image.yml; an image has a Dockerfile and an image.yml",
        NAME,
        "  Mend these files; docs/settings.md lists what tool.yaml and image.yml may say.",
    ]


def test_an_image_has_to_be_published_somewhere(tmp_path: Path) -> None:
    image(tmp_path)
    said = mistakes(tmp_path, 'repository = "own/tools"\n[bases]\nrepository = "own/bases"\n')
    assert said[0] == "images/util: images.repository is not set: where is this image to be published?"


def test_images_that_are_built_on_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    for name, parent in (("a", "b"), ("b", "a")):
        image(tmp_path, name, recipe=f"FROM ghcr.io/own/images:{parent}-latest\n")
    assert mistakes(tmp_path)[0] == (f"{tmp_path / 'images'}: images are built on each other in a circle: a → b → a")


def test_a_file_of_an_image_that_leaves_the_project_is_refused(tmp_path: Path) -> None:
    image(tmp_path)
    (tmp_path / "images" / "util" / "secrets").symlink_to("/etc")
    assert mistakes(tmp_path)[0] == "images/util/secrets: a link that leaves the project, to '/etc'"


def test_tools_without_any_base_are_refused(tmp_path: Path) -> None:
    image(tmp_path)
    (tmp_path / "tools" / "codex").mkdir(parents=True)
    assert mistakes(tmp_path)[0] == "there are tools and no bases to put them on"


def test_the_new_tables_are_read(tmp_path: Path) -> None:
    (tmp_path / "imagewright.toml").write_text(
        'repository = "own/tools"\n[bases]\nrepository = "own/bases"\n'
        '[images]\nregistry = "quay.io"\nrepository = "own/images"\nbootstrap = true\n'
        '[versions]\nimage = "ghcr.io/own/images:check-1"\nhost-fallback = false\n'
        '[build]\nparallel = 4\ncache = "type=registry,ref=ghcr.io/own/cache:{target}"\nsbom = "ghcr.io/own/scan:1"\n'
        "provenance = true\n"
    )
    read = load_settings(tmp_path, {"IMAGEWRIGHT_BUILD__PARALLEL": "3"})
    assert read.images == ImagesSettings(repository=make_repository("quay.io", "own/images"), bootstrap=True)
    assert read.versions == VersionsSettings(image="ghcr.io/own/images:check-1", host_fallback=False)
    assert read.build == BuildSettings(
        parallel=3,
        cache=Cache(kind="registry", attributes={"ref": "ghcr.io/own/cache:{target}"}),
        sbom="ghcr.io/own/scan:1",
        provenance=True,
    )
    assert read.may_be_new(make_repository("quay.io", "own/images"))
    assert read.may_be_new(make_repository("ghcr.io", "own/bases"))
    assert not read.may_be_new(make_repository("ghcr.io", "own/tools"))


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ("local", "'type=KIND,NAME=VALUE,…' is expected, KIND one of local, registry, s3"),
        ("type=gha,scope=x", "'type=KIND,NAME=VALUE,…' is expected, KIND one of local, registry, s3"),
        ("type=registry", "a cache of type registry needs ref"),
        ("type=s3,name=x", "a cache of type s3 needs bucket and region"),
        ("type=local,dir=x,mode=max", "a cache of type local has a `dir` and nothing else"),
        (
            "type=s3,bucket=a,region=b,secret_access_key=x",
            "secret_access_key is a secret: it comes from the environment, e.g. AWS_ACCESS_KEY_ID",
        ),
    ],
)
def test_a_cache_that_cannot_be_is_refused(tmp_path: Path, cache: str, said: str) -> None:
    (tmp_path / "imagewright.toml").write_text(
        f'repository = "own/tools"\n[bases]\nrepository = "own/bases"\n[build]\ncache = "{cache}"\nparallel = 0\n'
    )
    with pytest.raises(BadCatalogue) as refused:
        load_settings(tmp_path, {})
    assert str(refused.value).split("\n")[:2] == [
        f"imagewright.toml:5: build.cache: {said}",
        "imagewright.toml:6: build.parallel: at least 1",
    ]
