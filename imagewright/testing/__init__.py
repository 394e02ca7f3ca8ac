"""Small true worlds for tests: tiny images, registries that hold them, projects around them, a slow network.

Public: authors of checks use these too. Everything speaks real HTTP.
"""
