"""An image is built from today's recipe: the same Dockerfile, scripts and files, as far as its label tells."""

from imagewright.catalogue import Target
from imagewright.recipe import Recipes
from imagewright.snapshot import Published
from imagewright.verdict import Stale, own_labels, recipe_departures


def test_recipe(target: Target, recipes: Recipes, observed: Published, below: Published | None) -> None:
    """The recipe has changed since the image was built. Build it again."""
    published = own_labels(observed, below, recipes.label)
    today = {label: recipes.today(target.source, label) for label in published.values()}
    if departures := recipe_departures(published, today):
        raise Stale(departures)
