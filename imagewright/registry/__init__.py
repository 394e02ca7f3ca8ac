"""Registries over HTTP, guarded: `client` asks, `transport` carries, `auth` proves who asks, `answers` judges."""
