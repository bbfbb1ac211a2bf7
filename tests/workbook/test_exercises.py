import pytest

from selfie_lite.workbook.exercises import check


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "not answered yet. A hint comes with a wrong answer."),
        (2, "right!"),
        (3, "not yet. Hint: halve it"),
        ("x", "TypeError"),
    ],
)
def test_check_says_right_or_wrong_and_gives_a_hint(answer, said, capsys):
    check("Exercise 1", answer, lambda x: x - 2 == 0, hint="halve it")
    assert said in capsys.readouterr().out
