"""A pair is built from today's recipe: the same Dockerfile, scripts and files, as far as its label tells."""

from imagewright.catalogue import Pair
from imagewright.reasons import Stale as Because
from imagewright.recipe import Recipes
from imagewright.snapshot import Published
from imagewright.verdict import Reason, Stale, own_labels


def test_recipe(pair: Pair, recipes: Recipes, observed: Published, base: Published) -> None:
    """The recipe has changed since the image was built. Build it again."""
    labels = own_labels(observed, base, recipes.label)
    changed = {platform: label for platform, label in labels.items() if recipes.differs(pair.tool, label)}
    if changed:
        raise Stale(
            [
                Reason(code=Because.RECIPE_CHANGED, platform=str(platform), found=label)
                for platform, label in changed.items()
            ]
        )
