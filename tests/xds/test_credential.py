"""Credentials as messages, both ways."""

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.model.credential import Credential
from ztunnel.xds.credential import parse_credential, render_credential
from ztunnel.xds.resource import CREDENTIAL, name_of, parse, render, type_of

TEXT = st.text(max_size=30)


@given(st.builds(Credential, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT))
def test_what_is_sent_arrives(credential):
    assert parse_credential(render_credential(credential)) == credential


def test_its_name_is_that_of_its_secret():
    one = Credential("s", "shop", "c", "k")
    assert (name_of(one), type_of(one)) == ("shop/s", CREDENTIAL)
    assert parse(CREDENTIAL, render(one, ""), "") == one
