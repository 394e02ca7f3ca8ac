"""The forge: GitHub, Gitea, Forgejo. What runs there, and how a run is asked for. `runs`, `answers` are values only."""
