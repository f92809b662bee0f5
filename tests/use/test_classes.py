"""Classes of data and of classifiers: by name, by ImageNet's names, in order; never by chance."""

import pytest

from unmask.errors import DataError
from unmask.use.classes import (
    distinct,
    imagenet_folders,
    imagenet_indices,
    imagenet_names,
    match_classes,
    readable,
)


def words() -> tuple[str, ...]:
    """As Hugging Face's ImageNet classifiers call their outputs: two are cranes."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_descriptions())


def test_by_name():
    matching = match_classes(("dog", "ape"), ("ape", "cat", "dog"))
    assert matching == ([2, 0], ("ape", "cat", "dog"), "")


def test_in_order_where_no_name_is_known():
    matching = match_classes(("ape", "dog"), ("LABEL_0", "LABEL_1"))
    assert matching.outputs == [0, 1]
    assert matching.names == ("ape", "dog")
    assert "'ape' for 'LABEL_0', 'dog' for 'LABEL_1'" in matching.note


def test_numbers_that_stand_in_for_names_match_nothing_by_name():
    """Folders 0 to 10, as our sources order them and as ImageFolder does."""
    numbers = tuple(map(str, range(11)))
    assert match_classes(numbers, numbers).outputs == list(range(11))
    matching = match_classes(numbers, numbers, named=False, order=sorted(numbers))
    assert matching.outputs == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 2]
    assert matching.names == tuple(sorted(numbers))
    assert (
        "no names and are assigned to the sorted classes: 0 for '0', 1 for '1', 2 for '10'"
        in matching.note
    )
    with pytest.raises(DataError, match="11 outputs have no names, and the data have 2 classes"):
        match_classes(("0", "1"), numbers, named=False)


@pytest.mark.parametrize(
    ("data", "model"),
    [
        (("ape", "emu"), ("ape", "dog")),  # some are known: order would be wrong
        (("ape", "emu"), ("0", "1", "2")),
        (("0", "1", "2"), ("ape", "emu")),
    ],
)
def test_otherwise_an_error(data, model):
    with pytest.raises(DataError, match=f"knows {len(model)} classes .* call classes as it does"):
        match_classes(data, model)


@pytest.mark.parametrize("of_the_model", [imagenet_folders, words, imagenet_names])
@pytest.mark.parametrize("of_the_data", [imagenet_folders, lambda: distinct(imagenet_names())])
def test_imagenet_under_any_names(of_the_data, of_the_model):
    data, model = of_the_data(), of_the_model()
    chosen = [5, 999, 134, 517, 638, 639, 0]
    matching = match_classes([data[i] for i in chosen], model)
    assert matching.outputs == chosen
    assert [matching.names[i] for i in (0, 134)] == ["tench", "crane (134)"]


def test_some_of_imagenet_in_another_order():
    """A classifier of three of its classes, called by words, and folders."""
    folders = imagenet_folders()
    matching = match_classes((folders[1], folders[4]), ("hammerhead", "tench", "goldfish"))
    assert matching.outputs == [2, 0]


def test_what_is_not_imagenet():
    assert imagenet_indices(("tench", "not a fish")) is None
    assert imagenet_indices(("crane",)) is None, "there are two"
    assert imagenet_indices(("tench", "n01440764")) is None, "one class twice"
    assert imagenet_indices([f"species {i}" for i in range(1000)]) is None
    almost = [*words()[:995], *(f"new word {i}" for i in range(5))]
    assert imagenet_indices(almost) == list(range(1000))


def test_names_for_people():
    assert readable(("n01440764", "mine", "mine")) == ("tench", "mine (1)", "mine (2)")
    assert distinct(("a", "b", "a")) == ("a (0)", "b", "a (2)")
