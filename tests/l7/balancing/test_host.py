"""What is known of an endpoint."""

from tests.l7.hosts import host
from ztunnel.l7.balancing.host import hash_of


def test_an_endpoint_is_available_until_it_is_ejected():
    one = host(1)
    assert one.available
    one.ejected_at = 0.0
    assert not one.available


def test_its_places_on_a_ring_are_the_same_however_many_are_asked_for():
    few, many = host(1).points(3), host(1).points(50)
    assert many[:3] == few
    assert len(set(many)) == 50
    assert host(2).points(3) != few


def test_a_hash_is_the_same_in_every_process_and_of_64_bits():
    assert hash_of(b"a") == 0x40F89E395B66422F  # what is hashed here is hashed alike by all replicas
    assert 0 <= hash_of(b"b") < 1 << 64
