"""The corpus says what it seems to say."""

import pytest
from corpus import CORPUS, LAYERS, Case, format_case, parse


@pytest.mark.parametrize("text", [*CORPUS, *LAYERS.values()])
def test_strings_are_in_their_shortest_form(text):
    assert format_case(parse(text)) == text


def test_no_problem_stands_twice():
    assert len(set(CORPUS)) == len(CORPUS)
    assert len(set(LAYERS.values())) == len(LAYERS) == 21


def test_a_string_in_full():
    text = "mb2g2ic4oc6_id3ih4iw5_kd1kh2kw3_sh2_dw2_pd1ph1:0pw2+reflect+last+bias"
    assert parse(text) == Case(
        batch=2, groups=2, channels=4, filters=6, size=(3, 4, 5), kernel=(1, 2, 3), stride=(1, 2, 2),
        dilation=(1, 1, 2), padding=((1, 1), (1, 0), (2, 2)), mode="reflect", channels_last=True, bias=True,
    )  # fmt: skip


def test_shapes_follow_the_layout():
    last = parse("mb2ic3oc4ih6iw5kh3+last")
    assert (last.input_shape, last.weight_shape) == ((2, 6, 5, 3), (4, 3, 3, 3))
    assert parse("ic3oc4iw5kw3+unbatched").input_shape == (3, 5)
    image = parse("ih6iw5kh3+image")
    assert (image.input_shape, image.weight_shape) == ((6, 5), (3, 3))


@pytest.mark.parametrize("text", ["ic3", "ih5xy3", "ih5kh", "ih5+sideways", "ih5+reflect+reflect", "ih5kd2", ""])
def test_nonsense_is_refused(text):
    with pytest.raises(ValueError, match=r"not a problem|no size|unknown"):
        parse(text)
