import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.demo.manifest import Key, decode, parse, parse_some, render
from ztunnel.errors import ConfigError

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\n"
OTHER = POD.replace("v1", "x.io/v1").replace("Pod", "K")


def test_documents_are_found_with_the_lines_they_begin_on() -> None:
    text = f"# comment\n{POD}---\n---\n\n{POD.replace('Pod', 'Service')}spec: {{}}\n"
    assert [(each.key.kind, each.line) for each in parse(text, "x.yaml")] == [("Pod", 2), ("Service", 8)]


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
    assert [(manifest.key.name, manifest.line) for manifest in parse(text, "")] == [("a", 4), ("b", 5)]


def test_the_items_of_a_typed_list_may_omit_their_kind() -> None:
    (found,) = parse("apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: a}}]\n", "")
    assert (found.key.kind, found.body["apiVersion"], found.body["kind"]) == ("Pod", "v1", "Pod")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [}", "x.yaml:1: not YAML"),
        ("a: 2026-13-99", "x.yaml:1: not YAML: month"),
        (POD + "---\na: b: c\n", "x.yaml:5: not YAML"),
        (POD + "---\n? [a]\n: b\napiVersion: v1\n", "x.yaml:5: not YAML: found unhashable key"),
        ("hello", "x.yaml:1: no Kubernetes object"),
        ("a: 1", "x.yaml:1: no Kubernetes object: it has neither apiVersion nor kind"),
        ("kind: Pod\nmetadata: {name: a}", "x.yaml:1: apiVersion and kind are needed"),
        ("apiVersion: v1\nkind: Pod\n", "x.yaml:1: metadata is missing"),
        (POD.replace("name: a", "name: A_b"), "x.yaml:3: metadata.name: not a name"),
        (POD.replace("shop", "a/../b"), "x.yaml:3: metadata.namespace: not a name"),
        ("apiVersion: v1\nkind: LimitRange\nmetadata: {name: ../x}\n", "x.yaml:1: metadata.name"),
        (POD + "kind: Pod\n", "x.yaml:4: kind: stands twice"),
        ("[" * 200_000, "x.yaml:1: nested deeper than 100 levels"),
        (POD + "spec: " + "[" * 150 + "]" * 150, "x.yaml:1: nested deeper than 100 levels"),
        (POD + "spec: " + "{a: " * 150 + "}" * 150, "x.yaml:1: nested deeper than 100 levels"),
        (POD + "spec: &a {b: *a}\n", "x.yaml:1: nested deeper than 100 levels"),
        (POD + "spec: {containers: [{ports: [{containerPort: 99999}]}]}\n", "x.yaml:4: spec.containers[0]"),
        (POD + "spec: {nodeNam: n}\n", "x.yaml:4: spec.nodeNam: unknown field; did you mean nodeName?"),
    ],
)
def test_what_is_no_manifest_is_an_error_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.yaml")
    assert str(caught.value).startswith(message)


def test_aliases_that_repeat_each_other_are_not_written_out() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    text = "apiVersion: x.io/v1\nkind: K\nmetadata: {name: a}\n" + "\n".join(lines)
    with pytest.raises(ConfigError, match="aliases repeat each other too often"):
        parse(text, "x.yaml")


def test_all_faults_of_all_documents_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"[\n---\n{POD}spec: {{hostNetwork: 1, nodeName: 2}}\n---\nb: c: d\n", "x.yaml")
    assert [fault.line for fault in caught.value.faults] == [2, 6, 6, 8]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    mark = "\ufeff"
    found = parse(f"{mark}{POD}---\n{mark}{POD.replace('name: a', 'name: b')}", "")
    assert [manifest.key.name for manifest in found] == ["a", "b"]
    assert mark not in "".join(map(render, found))
    assert decode(b"\xef\xbb\xbfx", "") == "x"


def test_what_is_not_utf8_is_named_by_its_line() -> None:
    with pytest.raises(ConfigError, match=r"^x.yaml:2: not UTF-8"):
        decode(b"a: b\nc: \xff\n", "x.yaml")


def test_settings_of_other_programs_may_stand_beside_manifests() -> None:
    others = "services: {}\n---\n- hosts: all\n---\napiVersion: skaffold/v4beta1\nkind: Config\nbuild: {}\n"
    others += "---\napiVersion: argoproj.io/v1\nkind: Workflow\nmetadata: {generateName: x-}\n"
    manifests, foreign = parse_some(f"{others}---\n{POD}", "x.yaml")
    assert [manifest.key.name for manifest in manifests] == ["a"]
    assert [str(fault).removeprefix("x.yaml:") for fault in foreign] == [
        "1: no Kubernetes object: it has neither apiVersion nor kind",
        "3: no Kubernetes object: it has neither apiVersion nor kind",
        "5: no Kubernetes object: Config of skaffold/v4beta1 without a name",
        "9: no Kubernetes object: Workflow of argoproj.io/v1 without a name",
    ]
    with pytest.raises(ConfigError, match="no Kubernetes object"):
        parse(others, "x.yaml")
    nameless = "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n"  # of a kind that is read
    with pytest.raises(ConfigError, match="name is missing"):
        parse_some(nameless, "x.yaml")


@pytest.mark.parametrize(
    "text",
    [
        POD.replace("name: a", "name: {{ .Values.name }}"),
        "{{- if .Values.on }}\n" + POD + "{{- end }}\n",
        POD + "spec: {{ toYaml .Values.spec | nindent 2 }}\n",
    ],
)
def test_a_helm_template_says_that_it_has_to_be_rendered(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^x.yaml:\d: a Helm template: render it first"):
        parse(text, "x.yaml")


def test_braces_in_a_text_are_no_template() -> None:
    text = POD + 'spec: {containers: [{name: a, args: ["{{ .x }}"]}]}\n'
    assert len(parse(text, "")) == 1


def test_a_field_of_the_wrong_type_is_an_error_with_its_path() -> None:
    (found,) = parse(OTHER + "spec: {nodeName: [1], hostNetwork: 1, containers: {}}\n", "x.yaml")
    for path, kind in (("spec.nodeName", str), ("spec.hostNetwork", bool), ("spec.containers", list)):
        with pytest.raises(ConfigError, match=rf"^x.yaml:1: K shop/a: {path}: expected {kind.__name__}"):
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
    (found,) = parse(OTHER, "x.yaml")
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
    (found,) = parse("apiVersion: x.io/v1\nkind: K\nmetadata: &m {name: a}\nspec: *m\n", "")
    assert "*" not in render(found.with_body(found.body))
    assert yaml.safe_load(render(found.with_body(found.body)))["spec"] == {"name": "a"}
