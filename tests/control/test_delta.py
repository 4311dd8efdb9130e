"""What an update says of itself."""

from ztunnel.control.delta import Delta, Touched, arrange
from ztunnel.control.source.document import Key
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, ROUTES


def test_a_delta_is_by_type_as_snapshots_take_it():
    delta = Delta({"a": None}, {"p": None}, {"n/s": None})
    assert delta.by_type() == {ADDRESS: {"a": None}, AUTHORIZATION: {"p": None}, ROUTES: {"n/s": None}}


def test_each_kind_is_made_anew_among_its_own():
    touched = Touched()
    for kind in ("Service", "Pod", "ServiceEntry", "WorkloadEntry"):
        touched.take(Key(kind, "a", "x"))
    assert touched.services == touched.pods == {("a", "x")}
    assert touched.entries == {Key("ServiceEntry", "a", "x"), Key("WorkloadEntry", "a", "x")}


def test_remarks_about_policies_come_first():
    remarks = {
        Key("Pod", "b", "x"): ("1", "2"),
        Key("AuthorizationPolicy", "z", "x"): ("3",),
        Key("Pod", "a", "x"): ("4",),
    }
    assert arrange(remarks) == (["3"], ["4", "1", "2"])
