"""Recipes, studies and explorations that come with Secateur are found by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur.cli.boards import carriers
from secateur.errors import SecateurError
from secateur.pruning.explore.plan import load_plan
from secateur.pruning.explore.study import load_study
from secateur.pruning.recipes.recipe import OWN, load_recipe


def test_recipes_of_secateur_need_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that name in the folder comes first; a path never means one of them."""
    monkeypatch.chdir(tmp_path)
    for path in OWN.glob("*.toml"):
        name = Path(path.stem)
        if name.name.endswith("-study"):
            assert load_study(name).runs
        elif name.name.endswith("-explore"):
            assert load_plan(name, boards=carriers()).boards
        else:
            assert load_recipe(name).model.build.startswith("secateur.")
    for missing in (Path("no"), Path("sub/mnist"), Path("mnist.toml")):
        with pytest.raises(SecateurError, match="No such file"):
            load_recipe(missing)
    Path("mnist").write_text("")
    with pytest.raises(SecateurError, match="missing"):
        load_recipe(Path("mnist"))
