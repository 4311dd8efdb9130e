import pytest

from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_the_objects_on_disk_never_name_a_pod_that_could_not_be_built(plain: Laboratory) -> None:
    taken = plain.names.netns(plain.names.pod("t", "new"))
    taken.mkdir()  # no namespace can be made, nor removed, under this name
    with pytest.raises(LaboratoryFailed, match=r"netns"):
        plain.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: t}\n")
    taken.rmdir()
    assert "new" not in [pod.name for pod in plain.cluster().pods]
    plain.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: t}\n")
    assert plain.exec("new", ["hostname"]).stdout == "new\n"


def test_names_are_known_to_running_pods_as_services_come(plain: Laboratory) -> None:
    with plain.popen(
        "caller", ["sh", "-c", "read go; getent hosts fresh"], stdin=-1, stdout=-1, text=True
    ) as running:
        plain.apply("apiVersion: v1\nkind: Service\nmetadata: {name: fresh, namespace: t}\nspec: {}\n")
        assert "fresh.t" in running.communicate("go\n")[0]
