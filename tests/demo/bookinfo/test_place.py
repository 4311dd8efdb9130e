from ztunnel.demo.bookinfo.place import folder, read


def test_manifests_are_found() -> None:
    assert (folder() / "bookinfo.yaml").exists()


def test_of_two_objects_of_one_name_the_later_counts() -> None:
    (namespace,) = [one for one in read("bookinfo", "waypoint") if one.key.kind == "Namespace"]
    assert namespace.pull("metadata.labels", dict, {})["istio.io/use-waypoint"] == "waypoint"
    assert [one.key.kind for one in read("waypoint", "bookinfo")].count("Namespace") == 1
