"""The embedded registry: OCI layouts on disk behind the OCI distribution API 1.1, plain HTTP, for this machine.

`store` and `uploads` keep content on disk and know no HTTP, `wire` reads requests and writes answers, `api` maps one to
the other, `server` listens. https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""
