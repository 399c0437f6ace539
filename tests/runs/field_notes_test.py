"""What fields mean comes from the comments beside them, and every field of every packaged recipe has a meaning."""

import pytest

from voc2vec_jax.finetuning import recipe as finetuning_recipe
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.runs import configuration, field_notes, recipes

SOURCE = '''
"""c.words = 1  # in a text: no field"""
def get_config():
    # Data
    c.sets = ("a",)  # prepared sets
    c.plain = 0

    # Of training clips;
    # 0: not
    c.speed, c.shift = 0.0, 0.0
    c.wide = (  # behind a bracket
        1,
        2,
    )  # of the whole
    # Apart

    c.apart = 1
    c.text = "# not a comment"
    c.one = c.other = 0.1  # of both
    return {"seed": 0, "rate": 1.0}  # of neither
class Config:
    width: int = 768  # of the frames
    depth: int = 12
# Of an earlier version
EARLIER = {"seed": 1, "width": 1}
TECHNICAL = {
    "workers": 0,  # reading processes
    "seeds": (1,
              2),  # two of them
}
'''


def test_a_comment_behind_a_field_or_else_the_lines_above_are_its_note():
    found = field_notes.of_source(SOURCE)
    assert found == {
        "sets": "prepared sets",
        "speed": "Of training clips; 0: not",
        "shift": "Of training clips; 0: not",
        "wide": "of the whole",
        "one": "of both",
        "other": "of both",
        "width": "of the frames",
        "workers": "reading processes",
        "seeds": "two of them",
    }


def test_notes_of_other_recipes_leave_out_where_their_values_come_from(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("c.peak_lr = 1  # mine; fairseq: lr\n")
    notes = field_notes.of_recipe(own, ("voc125",))
    assert notes["peak_lr"] == "mine; fairseq: lr"
    assert notes["total_steps"] == "updates"
    assert "fairseq" in field_notes.of_recipe(recipes.named("voc125"), ())["total_steps"]


@pytest.mark.parametrize("source", ["voc125", "voc125_hubert:second", "quickstart", "finetune:folder"])
def test_every_field_of_a_packaged_recipe_has_a_meaning(source):
    taken = (finetuning_recipe if source.startswith("finetune") else pretraining_recipe).RECIPES
    path, _ = configuration.split_source(source)
    notes = field_notes.of_recipe(path, (*taken.names, *taken.notes))
    for name, _ in configuration.fields(configuration.load(source)):
        note = notes.get(name.rsplit(".", 1)[-1], "")
        assert len(note) > 3 and not note.startswith(("fairseq", "paper", "ours")), name
