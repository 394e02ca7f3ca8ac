"""The distribution API: which request means what to the store, and how the store's answer reads in HTTP.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#endpoints
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from imagewright.documents import MAX_MANIFEST_BYTES, OCI_INDEX
from imagewright.embedded.refusal import Code, Refused
from imagewright.embedded.store import Repository, Store, page
from imagewright.embedded.uploads import Upload
from imagewright.embedded.wire import Answer, Request, Slice, json_answer, refusal_answer
from imagewright.errors import Failed
from imagewright.names import MAX_NAME, BadName, Digest, Tag, parse_digest, parse_repository, parse_tag, shown

Function = Callable[["Api", Request, Mapping[str, str]], Answer]

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\Z")
_CONTENT_RANGE = re.compile(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/(?:\d+|\*))?\Z")


class Api:
    """A store's answers to requests."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def answer(self, request: Request) -> Answer:
        """The answer to a request; a refusal is one too."""
        try:
            return self._routed(request)
        except Refused as refused:
            return refusal_answer(refused)
        except Failed as failed:  # a person or a disk has damaged what is stored
            return refusal_answer(Refused(Code.BROKEN, f"{failed.where}: {failed.reason}"))
        except (ConnectionError, TimeoutError):
            raise  # the client is gone: nobody is left to be answered
        except OSError as error:  # disk full, permissions
            return refusal_answer(Refused(Code.BROKEN, f"the registry's disk: {error.strerror}"))

    def version(self, request: Request, values: Mapping[str, str]) -> Answer:
        """Says that there is a registry here."""
        return json_answer(200, {})

    def catalog(self, request: Request, values: Mapping[str, str]) -> Answer:
        """The names of the repositories."""
        names, link = _paged(self._store.names(), request)
        return json_answer(200, {"repositories": names}, link)

    def tags(self, request: Request, values: Mapping[str, str]) -> Answer:
        """The tags of a repository."""
        names, link = _paged(self._repository(values).tags(), request)
        return json_answer(200, {"name": values["name"], "tags": names}, link)

    def referrers(self, request: Request, values: Mapping[str, str]) -> Answer:
        """What refers to a digest; nothing, where even the repository is absent."""
        subject = _digest(values["digest"])
        try:
            found = self._repository(values).referrers(subject)
        except Refused as refused:
            if refused.code is not Code.NAME_UNKNOWN:
                raise
            found = []
        headers = {"Content-Type": OCI_INDEX}
        if wanted := request.query.get("artifactType"):
            found = [one for one in found if one.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        return json_answer(200, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}, headers)

    def get_manifest(self, request: Request, values: Mapping[str, str]) -> Answer:
        """A manifest, or with HEAD what it is."""
        repository = self._repository(values)
        stored = repository.resolve(_existing_reference(values["reference"]))
        headers = _content_headers(stored.digest, stored.media_type)
        if _not_modified(request, stored.digest):
            return Answer(status=304, headers=headers)
        if request.method == "HEAD":
            headers["Content-Length"] = str(repository.manifest_size(stored))
            return Answer(status=200, headers=headers)
        return Answer(status=200, headers=headers, body=repository.manifest(stored))

    def put_manifest(self, request: Request, values: Mapping[str, str]) -> Answer:
        """Keeps a manifest under a tag or its digest."""
        name, reference = _name(values), _new_reference(values["reference"])
        tags = _more_tags(reference, request)
        body = request.body.whole(MAX_MANIFEST_BYTES)
        stored = self._store.place(name).put(reference, request.headers.get("content-type", ""), body, tags)
        headers = _created_headers(f"/v2/{name}/manifests/{reference}", stored.digest)
        if tags:
            headers["OCI-Tag"] = ", ".join(tags)
        if stored.subject:
            headers["OCI-Subject"] = stored.subject
        return Answer(status=201, headers=headers)

    def delete_manifest(self, request: Request, values: Mapping[str, str]) -> Answer:
        """Removes a tag, or a manifest with all its tags."""
        repository = self._repository(values)
        reference = _existing_reference(values["reference"])
        if ":" in reference:
            repository.delete_manifest(Digest(reference))
        else:
            repository.delete_tag(Tag(reference))
        return Answer(status=202)

    def get_blob(self, request: Request, values: Mapping[str, str]) -> Answer:
        """A blob, or a part of it, or with HEAD what it is."""
        digest = _digest(values["digest"])
        path = self._repository(values).blob(digest)
        headers = _content_headers(digest, "application/octet-stream")
        headers["Accept-Ranges"] = "bytes"
        if _not_modified(request, digest):
            return Answer(status=304, headers=headers)
        if request.method == "HEAD":
            headers["Content-Length"] = str(path.stat().st_size)
            return Answer(status=200, headers=headers)
        return _file_answer(request, path, digest, headers)

    def delete_blob(self, request: Request, values: Mapping[str, str]) -> Answer:
        """Removes a blob."""
        self._repository(values).delete_blob(_digest(values["digest"]))
        return Answer(status=202)

    def start_upload(self, request: Request, values: Mapping[str, str]) -> Answer:
        """Mounts a blob, or takes it with this request, or starts an upload."""
        name, query = _name(values), request.query
        if query.get("digest-algorithm", "sha256") not in ("sha256", "sha512"):
            algorithm = shown(query["digest-algorithm"])
            raise Refused(Code.DIGEST_INVALID, f"digests of {algorithm} are unknown here, only sha256 and sha512")
        if "mount" in query and self._mounted(name, query):
            return _blob_created(name, _digest(query["mount"]))
        if "digest" not in query:
            return _progress(202, self._store.uploads.start(name))
        digest = _digest(query["digest"])
        upload = self._store.uploads.start(name)
        with upload.lock:
            try:
                upload.append(request.body.pieces())
            except BaseException:
                self._store.uploads.forget(upload)  # nobody knows its address
                raise
            self._store.finish(upload, digest)
        return _blob_created(name, digest)

    def upload_status(self, request: Request, values: Mapping[str, str]) -> Answer:
        """How much of an upload is here."""
        return _progress(204, self._store.uploads.find(_name(values), values["upload"]))

    def append_upload(self, request: Request, values: Mapping[str, str]) -> Answer:
        """Adds a chunk, or a stream without end announced, to an upload."""
        with self._store.uploads.held(_name(values), values["upload"]) as upload:
            return _appended(request, upload) or _progress(202, upload)

    def finish_upload(self, request: Request, values: Mapping[str, str]) -> Answer:
        """Makes an upload a blob, perhaps after its last chunk."""
        name, digest = _name(values), _digest(request.query.get("digest", ""))
        with self._store.uploads.held(name, values["upload"]) as upload:
            if out_of_order := _appended(request, upload):
                return out_of_order
            self._store.finish(upload, digest)
        return _blob_created(name, digest)

    def cancel_upload(self, request: Request, values: Mapping[str, str]) -> Answer:
        """Ends an upload without a blob, also one that is being written to: whoever cancels does not wait for that."""
        uploads = self._store.uploads
        upload = uploads.find(_name(values), values["upload"])
        uploads.take(upload)
        uploads.forget(upload)
        return Answer(status=204)

    def _routed(self, request: Request) -> Answer:
        for pattern, methods in _ROUTES:
            if matched := pattern.match(request.path):
                if function := methods.get(request.method):
                    return function(self, request, matched.groupdict())
                allowed = ", ".join(methods)
                refused = Refused(Code.UNSUPPORTED, f"{request.method} is not possible here, only {allowed}")
                return refusal_answer(refused, {"Allow": allowed})
        raise Refused(Code.NOT_FOUND, "there is nothing at this address", {"path": shown(request.path)})

    def _repository(self, values: Mapping[str, str]) -> Repository:
        return self._store.repository(_name(values))

    def _mounted(self, name: str, query: Mapping[str, str]) -> bool:
        """Anything wrong with a mount makes it an ordinary upload, as the specification asks."""
        try:
            digest = parse_digest(query["mount"])
            source = parse_repository(query["from"]) if query.get("from") else None
        except BadName:
            return False
        return self._store.mount(name, digest, source)


def _path(template: str) -> re.Pattern[str]:
    """A path with `{name}`, which may contain '/', and other parts, which may not."""
    pattern = template.replace("{name}", "(?P<name>.+)")
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern) + r"\Z", re.DOTALL)


_ROUTES: tuple[tuple[re.Pattern[str], dict[str, Function]], ...] = (
    (
        _path("/v2/{name}/manifests/{reference}"),
        {
            "GET": Api.get_manifest,
            "HEAD": Api.get_manifest,
            "PUT": Api.put_manifest,
            "DELETE": Api.delete_manifest,
        },
    ),
    (
        _path("/v2/{name}/blobs/uploads/{upload}"),
        {
            "GET": Api.upload_status,
            "HEAD": Api.upload_status,
            "PATCH": Api.append_upload,
            "PUT": Api.finish_upload,
            "DELETE": Api.cancel_upload,
        },
    ),
    (_path("/v2/{name}/blobs/uploads/?"), {"POST": Api.start_upload}),
    (_path("/v2/{name}/blobs/{digest}"), {"GET": Api.get_blob, "HEAD": Api.get_blob, "DELETE": Api.delete_blob}),
    (_path("/v2/{name}/tags/list"), {"GET": Api.tags, "HEAD": Api.tags}),
    (_path("/v2/{name}/referrers/{digest}"), {"GET": Api.referrers, "HEAD": Api.referrers}),
    (_path("/v2/?"), {"GET": Api.version, "HEAD": Api.version}),
    (_path("/v2/_catalog"), {"GET": Api.catalog, "HEAD": Api.catalog}),
)


def _name(values: Mapping[str, str]) -> str:
    name = values["name"]
    try:
        if len(name) > MAX_NAME:
            raise BadName(f"{shown(name)} has more than {MAX_NAME} characters")
        return parse_repository(name)
    except BadName as error:
        raise Refused(Code.NAME_INVALID, str(error)) from None


def _digest(text: str) -> Digest:
    try:
        return parse_digest(text)
    except BadName as error:
        raise Refused(Code.DIGEST_INVALID, str(error)) from None


def _new_reference(text: str) -> Tag | Digest:
    return _digest(text) if ":" in text else _new_tag(text)


def _new_tag(text: str) -> Tag:
    try:
        return parse_tag(text)
    except BadName as error:
        raise Refused(Code.TAG_INVALID, str(error)) from None


def _more_tags(reference: Tag | Digest, request: Request) -> list[Tag]:
    """The tags that a manifest gets besides its digest: https://github.com/opencontainers/distribution-spec/pull/600"""
    tags = [_new_tag(text) for text in _all(request, "tag")]
    if tags and ":" not in reference:
        raise Refused(Code.TAG_INVALID, "tags as parameters are possible only where a manifest is pushed by its digest")
    return list(dict.fromkeys(tags))


def _existing_reference(text: str) -> Tag | Digest:
    """What cannot be a tag was never pushed: that is an unknown manifest, not a bad request."""
    try:
        return _new_reference(text)
    except Refused as refused:
        if refused.code is Code.TAG_INVALID:
            raise Refused(Code.MANIFEST_UNKNOWN, refused.message) from None
        raise


def _paged(names: Iterable[str], request: Request) -> tuple[list[str], dict[str, str]]:
    """The page of names that the query asks for, and the header that tells of the next one."""
    query = request.query
    limit = None
    if "n" in query:
        if not re.match(r"[0-9]{1,9}\Z", query["n"]):
            raise Refused(Code.PAGINATION_NUMBER_INVALID, f"n={shown(query['n'])} is not a number of names")
        limit = int(query["n"])
    found, more = page(names, query.get("last", ""), limit)
    following = urlencode({"n": limit, "last": found[-1]}) if more else ""
    return found, {"Link": f'<{request.path}?{following}>; rel="next"'} if more else {}


def _all(request: Request, parameter: str) -> list[str]:
    """Every value of a parameter that may stand in a query more than once."""
    query = request.target.partition("?")[2]
    return [value for name, value in parse_qsl(query, keep_blank_values=True) if name == parameter]


def _content_headers(digest: Digest, media_type: str) -> dict[str, str]:
    return {"Content-Type": media_type, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}


def _created_headers(location: str, digest: Digest) -> dict[str, str]:
    return {"Location": location, "Docker-Content-Digest": digest}


def _blob_created(name: str, digest: Digest) -> Answer:
    return Answer(status=201, headers=_created_headers(f"/v2/{name}/blobs/{digest}", digest))


def _not_modified(request: Request, digest: Digest) -> bool:
    """Whether the client has this already; also where it forgets the quotes, as some do."""
    stated = request.headers.get("if-none-match")
    if stated is None:
        return False
    tags = [one.strip().removeprefix("W/").strip('"') for one in stated.split(",")]
    return "*" in tags or digest in tags


def _file_answer(request: Request, path: Path, digest: Digest, headers: dict[str, str]) -> Answer:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise Refused(Code.BLOB_UNKNOWN, "the blob has just been removed", {"digest": digest}) from None
    size = file.seek(0, 2)
    part = _range(request, digest, size)
    if part is None:
        return Answer(status=200, headers=headers, body=Slice(file, 0, size))
    first, last = part
    if first > last:
        file.close()
        refused = Refused(Code.RANGE_INVALID, f"the blob has {size} bytes")
        return refusal_answer(refused, {"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Answer(status=206, headers=headers, body=Slice(file, first, last - first + 1))


def _range(request: Request, digest: Digest, size: int) -> tuple[int, int] | None:
    """First and last byte asked for, None for all; first > last where there is no such part.

    Several ranges, other units and nonsense mean all; the one range that ends before its start is refused, which is as
    right: https://www.rfc-editor.org/rfc/rfc9110#section-14.2
    """
    matched = _RANGE.match(request.headers.get("range", ""))
    if not matched or request.headers.get("if-range", f'"{digest}"') != f'"{digest}"':
        return None
    first, last, suffix = matched.groups()
    if suffix:
        return (max(0, size - int(suffix)), size - 1) if int(suffix) else (1, 0)
    return (int(first), min(int(last or size), size - 1))


def _progress(status: int, upload: Upload) -> Answer:
    headers = {
        "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(0, upload.size - 1)}",
        "Docker-Upload-UUID": upload.id,
    }
    return Answer(status=status, headers=headers)


def _appended(request: Request, upload: Upload) -> Answer | None:
    """Adds the request's body; the answer instead if it is not the upload's next chunk."""
    stated = request.headers.get("content-range")
    if stated is not None:
        matched = _CONTENT_RANGE.match(stated)
        announced = int(matched[2]) - int(matched[1]) + 1 if matched else -1
        if not matched or int(matched[1]) != upload.size or announced < 0:
            refused = Refused(Code.RANGE_INVALID, f"the next chunk starts at byte {upload.size}")
            return refusal_answer(refused, _progress(416, upload).headers)
        if request.body.length not in (None, announced):
            raise Refused(Code.SIZE_INVALID, f"Content-Range names {announced} bytes, Content-Length is another number")
    received = upload.append(request.body.pieces())
    if stated is not None and received != announced:
        raise Refused(Code.SIZE_INVALID, f"Content-Range names {announced} bytes, the body has {received}")
    return None
