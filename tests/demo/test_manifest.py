import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.demo.manifest import Key, parse, parse_all, render
from ztunnel.errors import ConfigError

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\n"


def test_documents_are_found_with_the_lines_they_begin_on() -> None:
    found = parse(f"# comment\n{POD}---\n---\n\n{POD.replace('Pod', 'Service')}", "x.yaml")
    assert [(manifest.key.kind, manifest.line) for manifest in found] == [("Pod", 2), ("Service", 8)]


def test_the_version_of_an_api_is_not_part_of_the_key() -> None:
    texts = [f"apiVersion: x.io/{version}\nkind: K\nmetadata: {{name: a}}\n" for version in ("v1", "v1beta1")]
    assert {parse(text, "").__getitem__(0).key for text in texts} == {Key("x.io", "K", "default", "a")}


def test_nodes_and_namespaces_have_no_namespace() -> None:
    (found,) = parse("apiVersion: v1\nkind: Node\nmetadata: {name: n, namespace: x}\n", "")
    assert str(found.key) == "Node n"


def test_a_list_counts_as_its_items() -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n" + "\n".join(
        f"- {{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}}}" for name in "ab"
    )
    assert [manifest.key.name for manifest in parse(text, "")] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [}", "x.yaml:1: not YAML"),
        ("a: 2026-13-99", "x.yaml: not YAML: month"),
        (POD + "---\na: b: c\n", "x.yaml:5: not YAML"),
        ("hello", "x.yaml:1: expected a mapping"),
        ("kind: Pod\nmetadata: {name: a}", "x.yaml:1: apiVersion: missing"),
        ("apiVersion: v1\nkind: Pod\n", "x.yaml:1: metadata: missing"),
        (POD.replace("name: a", "name: A_b"), "x.yaml:1: metadata.name: not a name"),
        (POD.replace("shop", "a/../b"), "x.yaml:1: metadata.namespace: not a name"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ../x}\n", "x.yaml:1: metadata.name"),
    ],
)
def test_what_is_no_manifest_is_an_error_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.yaml")
    assert str(caught.value).startswith(message)


def test_the_faults_of_all_files_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_all([("a", "1"), ("b", POD), ("c", "[")])
    assert [fault.file for fault in caught.value.faults] == ["a", "c"]


def test_the_last_of_two_objects_of_one_key_counts() -> None:
    (found,) = parse_all([("a", POD), ("b", POD + "spec: {nodeName: n}\n")])
    assert found.file == "b"


def test_a_field_of_the_wrong_type_is_an_error_with_its_path() -> None:
    (found,) = parse(POD + "spec: {nodeName: [1], hostNetwork: 1, containers: {}}\n", "x.yaml")
    for path, kind in (("spec.nodeName", str), ("spec.hostNetwork", bool), ("spec.containers", list)):
        with pytest.raises(ConfigError, match=rf"^x.yaml:1: Pod shop/a: {path}: expected {kind.__name__}"):
            found.pull(path, kind, kind())
    assert found.pull("spec.none.at.all", str, "default") == "default"


def test_an_untouched_object_is_rendered_as_it_was_written() -> None:
    text = POD + "spec: {}  # reason: ä\n"
    (found,) = parse(f"# ä\n{POD}---\n{text}", "x.yaml")[1:]
    assert render(found) == f"# x.yaml:6\n{text}"
    assert "reason" not in render(found.with_body(found.body))


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(_values)
def test_an_object_survives_rendering_and_parsing(spec: object) -> None:
    (found,) = parse(POD, "x.yaml")
    changed = found.with_body({**found.body, "spec": spec})
    assert parse(render(changed), "")[0].body == changed.body


@given(st.text())
def test_any_text_gives_manifests_or_a_config_error(text: str) -> None:
    try:
        parse(text, "x")
    except ConfigError as error:
        faults = error.faults
    else:
        faults = ()
    assert all(fault.message for fault in faults)


@given(st.text(alphabet="ab", min_size=1), st.text(alphabet="ab_", min_size=1))
def test_no_two_objects_share_a_file(namespace: str, name: str) -> None:
    keys = [Key("", "K", namespace, name), Key("", "K", "", name), Key("g", "K", namespace, name)]
    assert len({key.file_name for key in keys}) == 3
    assert all("/" not in key.file_name for key in keys)


def test_yaml_anchors_are_written_out() -> None:
    (found,) = parse("apiVersion: v1\nkind: K\nmetadata: &m {name: a}\nspec: *m\n", "")
    assert "*" not in render(found.with_body(found.body))
    assert yaml.safe_load(render(found.with_body(found.body)))["spec"] == {"name": "a"}
