import pytest

from ztunnel.demo.kustomization import resources
from ztunnel.errors import ConfigError


def test_one_that_only_lists_is_its_list() -> None:
    text = "kind: Kustomization\nresources:\n- a.yaml\n- ../base\nbases: [old]\npatches: []\n"
    assert resources(text, "k.yaml") == ["a.yaml", "../base", "old"]
    assert resources("resources: []\n", "k.yaml") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "resources: [a]\npatches: [{path: p.yaml}]\n",
            "k.yaml:2: patches: changes what it lists: render it",
        ),
        ("namePrefix: x-\nresources: [a]\n", "k.yaml:1: namePrefix: changes what it lists"),
        ("configMapGenerator: [{name: a}]\n", "k.yaml:1: configMapGenerator: changes"),
        ("resources:\n- https://x.io/y.yaml\n", "k.yaml:2: resources: not a path on this machine"),
        ("resources: [github.com/a/b]\n", "k.yaml:1: resources: not a path"),
        ("resources: [{a: b}]\n", "k.yaml:1: resources: not a path"),
        ("- a\n", "k.yaml:1: no kustomization"),
        ("", "k.yaml:1: no kustomization"),
        ("a: [\n", "k.yaml:2: not YAML"),
        ("[" * 200_000, "k.yaml:1: nested deeper"),
    ],
)
def test_one_that_changes_what_it_lists_has_to_be_rendered(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resources(text, "k.yaml")
    assert str(caught.value).startswith(message)
