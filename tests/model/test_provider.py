"""A provider goes by its name, and a port of a service reads as it is written."""

from ztunnel.model.provider import ExtAuthz, ExtensionProvider, ServicePort, Speech


def test_a_provider_goes_by_its_name():
    assert ExtensionProvider("asks", ExtAuthz(Speech.HTTP, ServicePort("a.b", 80))).key == "asks"


def test_a_port_of_a_service_reads_as_it_is_written():
    assert str(ServicePort("a.b", 80)) == "a.b:80"
    assert str(ServicePort("a.b", 80, "n")) == "n/a.b:80"
