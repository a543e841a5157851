from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol

import pytest
from annotated_types import Ge, Gt, Le, Lt

from align.errors import UserError
from align.settings.type_checks import Count, NotNegative, Positive, Settings, Shape, Share, build, defaults


class Named(Protocol):
    name: str


@dataclass(frozen=True, kw_only=True)
class Example:
    text: str
    numbers: tuple[float, ...] = ()
    names: str | tuple[str, ...] = "all"
    items: Sequence[int] = ()
    choice: Literal["a", "b"] | None = None
    anything: Unknown = None  # type: ignore[name-defined]  # noqa: F821
    fixed: ClassVar[int] = 3


def test_build_turns_lists_into_tuples_where_a_tuple_is_wanted() -> None:
    made = build(Example, {"text": "x", "numbers": [1, 2.5], "names": ["q", "v"], "items": [1]})
    assert made == Example(text="x", numbers=(1, 2.5), names=("q", "v"), items=[1])


def test_build_accepts_any_value_where_the_type_is_unknown_at_run_time() -> None:
    assert build(Example, {"text": "x", "anything": {1}}).anything == {1}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"text": "x", "txt": 1}, 'txt is not a setting of Example. Did you mean "text"?'),
        ({"text": "x", "fixed": 4}, "fixed is not a setting of Example."),
        ({"text": 3}, "text must be text, not 3."),
        ({"text": "x", "numbers": ["a"]}, "numbers must be a list of numbers, not ['a']."),
        ({"text": "x", "choice": "c"}, "choice must be a, b or null, not 'c'."),
    ],
)
def test_build_names_what_does_not_fit(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as error:
        build(Example, values)
    assert str(error.value) == expected


@dataclass(frozen=True, kw_only=True)
class Nested:
    example: Example
    named: Named | None = None
    pairs: tuple[tuple[int, str], ...] = ()


def test_build_knows_dataclasses_and_accepts_what_cannot_be_checked_at_run_time() -> None:
    example = Example(text="x")
    made = build(Nested, {"example": example, "named": example, "pairs": [[1, "a"]]})
    assert (made.example, made.named, made.pairs) == (example, example, ((1, "a"),))
    with pytest.raises(UserError, match=r"example must be Example, not \{'text': 'x'\}\."):
        build(Nested, {"example": {"text": "x"}})


def test_a_field_without_a_default_must_be_given() -> None:
    with pytest.raises(UserError, match=r"text is missing; it must be given\."):
        build(Example, {"numbers": [1]})


@dataclass(frozen=True, kw_only=True)
class Checked(Settings):
    rate: Positive | None = None
    count: Count = 1
    share: Annotated[float, Gt(0), Le(1)] = 1.0
    names: tuple[str, ...] = ()
    form: Literal["paper", "code"] = "paper"
    made: int = field(default=0, init=False)

    def check(self) -> None:
        if self.count == 13:
            raise UserError("count is unlucky.")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rate": 0}, "rate must be above 0, not 0."),
        ({"rate": float("inf")}, "rate must be above 0, not inf."),
        ({"rate": "1"}, "rate must be a number or null, not '1'."),
        ({"count": True}, "count must be a whole number, not true."),
        ({"share": 1.5}, "share must be above 0 and at most 1, not 1.5."),
        ({"names": ["a", 1]}, "names must be a list of texts, not ['a', 1]."),
        ({"form": "cod"}, "form must be paper or code, not 'cod'. Did you mean \"code\"?"),
        ({"count": 13}, "count is unlucky."),
    ],
)
def test_settings_check_themselves_when_they_are_made(values: dict[str, Any], expected: str) -> None:
    for make in (lambda: Checked(**values), lambda: build(Checked, values)):
        with pytest.raises(UserError) as error:
            make()
        assert str(error.value) == expected


def test_values_stay_as_they_are_but_for_lists_that_must_be_tuples() -> None:
    made = Checked(rate=2, names=["a"])  # type: ignore[arg-type]
    assert (made.rate, type(made.rate), made.names) == (2, int, ("a",))


def test_defaults_are_plain() -> None:
    assert defaults(Example) == {
        "text": "???",
        "numbers": [],
        "names": "all",
        "items": [],
        "choice": None,
        "anything": None,
    }
    assert "made" not in defaults(Checked)


def test_a_shape_of_names_and_types() -> None:
    with pytest.raises(UserError, match=r"beta must be a number, not 'x'\."):
        Shape("dpo", {"beta": float}).check({"beta": "x"})


@dataclass(frozen=True, kw_only=True)
class Mixture(Settings):
    weights: Mapping[str, float]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": "x"}, "weights.a must be a number, not 'x'."),
        ([1.0], "weights must be names with values (name: value), not [1.0]."),
    ],
)
def test_the_wrong_entry_of_a_mapping_is_named(weights: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(Mixture, {"weights": weights})
    assert str(caught.value) == message


@dataclass(frozen=True, kw_only=True)
class Ranges(Settings):
    positive: Positive = 1.0
    not_negative: NotNegative = 0.0
    share: Share = 0.0
    count: Count = 1
    below: Annotated[float, Ge(0), Lt(1)] | None = None
    flag: bool = False
    text: str = ""


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("positive", [1e-300, 1, 1e300], [0, -1, float("inf"), float("nan")]),
        ("not_negative", [0, 0.0, 1e300], [-1e-9, float("inf"), float("nan")]),
        ("share", [0, 0.5, 1], [-1e-9, 1.0001, float("nan")]),
        ("count", [1, 10**9], [0, -1, 1.0, True, "1"]),
        ("below", [0, 0.999, None], [1, -0.1]),
        ("flag", [True, False], [1, 0, "true", None]),
        ("text", ["", "a"], [1, None, True, ["a"]]),
    ],
)
def test_ranges(name: str, inside: list[Any], outside: list[Any]) -> None:
    for value in inside:
        assert getattr(Ranges(**{name: value}), name) == value
        assert build(Ranges, {name: value}) == Ranges(**{name: value})
    for value in outside:
        with pytest.raises(UserError, match=f"^{name} must be "):
            Ranges(**{name: value})


@pytest.mark.parametrize("value", ["1", "1e-4", True])
def test_a_text_or_a_flag_is_no_number(value: object) -> None:
    for name in ("positive", "not_negative", "share", "count"):
        with pytest.raises(UserError, match=f"^{name} must be a (whole )?number, not "):
            Ranges(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        ("é\n", r"'\xe9\n'"),
        (["a", 1], "['a', 1]"),
        (("a", 1), "['a', 1]"),
        ("x" * 100, "'" + "x" * 79),
    ],
)
def test_how_a_wrong_value_is_shown(value: object, shown: str) -> None:
    with pytest.raises(UserError) as error:
        Shape("any", {"size": Count}).check({"size": value})
    assert str(error.value) == f"size must be a whole number, not {shown}."


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int | None, "a whole number or null"),
        (float | str | None, "a number, text or null"),
        (tuple[int, ...], "a list of whole numbers"),
        (tuple[float, float], "a list of 2 numbers"),
        (list[str], "a list of texts"),
        (Sequence[bool], "a list of values"),
        (tuple[Literal["a", "b"], ...] | None, "a list of a or b or null"),
        (Mapping[str, int], "names with values (name: value)"),
        (Literal["a", "b", "c"], "a, b or c"),
        (Callable[[], int], "a function"),
        (Checked, "Checked"),
    ],
)
def test_what_is_expected_is_said_in_words(hint: Any, expected: str) -> None:
    with pytest.raises(UserError) as error:
        Shape("any", {"it": hint}).check({"it": b"x"})
    assert str(error.value).startswith(f"it must be {expected}, not ")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (("wandb", "foo"), "not ['wandb', 'foo']: 'foo' is none of them."),
        (("wandbb",), "not ['wandbb']: 'wandbb' is none of them. Did you mean \"wandb\"?"),
        ("wandb", "not 'wandb'. Write [wandb]."),
        ("wandbb", "not 'wandbb'. Write [wandb]."),
        ("foo", "not 'foo'."),
        (3, "not 3."),
    ],
)
def test_a_list_of_choices_names_them_and_what_is_none(value: Any, says: str) -> None:
    shape = Shape("any", {"trackers": tuple[Literal["wandb", "mlflow"], ...]})
    with pytest.raises(UserError) as error:
        shape.check({"trackers": list(value) if isinstance(value, tuple) else value})
    assert str(error.value) == f"trackers must be a list of wandb or mlflow, {says}"


def test_values_are_checked_under_their_names() -> None:
    shape = Shape("dpo", {"beta": float, "names": tuple[tuple[str, ...], ...]}, ["beta"])
    assert shape.check({"names": [["a"], ["b", "c"]], "beta": 1}) == {"names": (("a",), ("b", "c")), "beta": 1}
    with pytest.raises(UserError, match=r'^bta is not a setting of dpo\. Did you mean "beta"\?$'):
        shape.check({"bta": 1.0, "beta": 1.0})
    with pytest.raises(UserError, match=r"^beta is missing; it must be given\.$"):
        shape.check({"names": []})
    with pytest.raises(UserError) as both:
        shape.check({"beta": "a", "names": 1})
    assert both.value.args == ("beta must be a number, not 'a'.", "names must be a list of values, not 1.")


def test_a_default_of_its_own_is_made_for_each() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Lists:
        given: int
        made: list[int] = field(default_factory=lambda: [1])
        pair: tuple[int, int] = (1, 2)
        hidden: int = field(default=3, init=False)

    first = defaults(Lists)
    assert first == {"given": "???", "made": [1], "pair": [1, 2]}
    first["made"].append(2)
    assert defaults(Lists)["made"] == [1]
