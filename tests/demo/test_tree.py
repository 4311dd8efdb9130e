import pytest
import yaml

from ztunnel.demo.tree import child, items, line_of, mapping, named, text_of, too_much


def tree(text: str) -> yaml.Node:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert node is not None
    return node


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{apiVersion: v1, kind: Pod}", [("", "v1", "Pod")]),
        (
            "{apiVersion: v1, kind: List, items: [{kind: A, apiVersion: x/v1}, {}]}",
            [
                ("items[0]", "x/v1", "A"),
                ("items[1]", "", ""),
            ],
        ),
        ("{apiVersion: apps/v1, kind: DeploymentList, items: [{}]}", [("items[0]", "apps/v1", "Deployment")]),
        ("{apiVersion: v1, kind: List}", [("", "v1", "List")]),
        ("{apiVersion: 1, kind: [x]}", [("", "", "")]),
        ("[1]", [("", "", "")]),
    ],
)
def test_the_objects_of_a_document(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert [(item.path, item.version, item.kind) for item in items(tree(text))] == expected


def test_what_stands_under_a_name() -> None:
    root = tree("a:\n  b:\n  - c\n")
    found = child(root, "a", "b")
    assert found is not None
    assert line_of(found) == 3
    assert child(root, "a", "x") is child(root, "a", "b", "c") is child(None, "a") is None
    assert text_of(child(root, "a")) == text_of(None) == ""


def test_a_template_gets_a_name_and_keeps_its_lines() -> None:
    template = tree("metadata:\n  name: given\n  labels: {a: b}\nspec: {x: y}\n")
    metadata = named(child(template, "metadata"), template, "made")
    made = mapping(template, metadata=metadata, spec=child(template, "spec"), status=None)
    assert [key.value for key, _ in made.value] == ["metadata", "spec"]
    assert text_of(child(made, "metadata", "name")) == "made"
    labels = child(made, "metadata", "labels")
    assert labels is not None
    assert line_of(labels) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 99 + "1" + "]" * 99, ""),
        ("[" * 100 + "1" + "]" * 100, "nested deeper than 100 levels"),
        ("&a [*a]", "nested deeper than 100 levels"),
        ("{a: &a {b: *a}}", "nested deeper than 100 levels"),
    ],
)
def test_what_is_too_deep_to_be_copied(text: str, reason: str) -> None:
    assert too_much(tree(text)) == reason
