"""A list is cut at its items, with their lines and columns, and what may be none is left whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.state.listing import cut_list

KUBECTL = """apiVersion: v1
items:
- apiVersion: v1
  kind: Pod
  metadata:
    name: a
    annotations:
      text: |
        - no item
       # nor this

      other: x
# between them
-   kind: Pod
    args:
    - no item
-
  kind: Pod
kind: List
metadata:
  resourceVersion: ""
"""


def test_a_list_as_kubectl_writes_it_is_cut():
    listing = cut_list(KUBECTL)
    assert listing.frame == 'apiVersion: v1\nitems:\nkind: List\nmetadata:\n  resourceVersion: ""\n'
    assert [item.line for item in listing.items] == [3, 14, 17]
    first, second, third = (item.text for item in listing.items)
    assert first.startswith("  apiVersion: v1\n  kind: Pod\n")
    assert first.endswith("other: x\n# between them\n")
    assert second == "    kind: Pod\n    args:\n    - no item\n"
    assert third == " \n  kind: Pod\n"


@pytest.mark.parametrize("indent", ["", "  ", "    "])
def test_items_may_be_indented(indent):
    listing = cut_list(
        f"kind: List\nitems:\n{indent}- a: 1\n{indent}  b:\n{indent}  - 2\n{indent}- c: 3\nx: 1\n"
    )
    assert [item.text for item in listing.items] == [
        f"{indent}  a: 1\n{indent}  b:\n{indent}  - 2\n",
        f"{indent}  c: 3\n",
    ]
    assert listing.frame == "kind: List\nitems:\nx: 1\n"


@pytest.mark.parametrize(
    "text", ["", "items: []\n", "items: [\n- a\n]\n", "x:\n  items:\n  - a\n", "items:\n", "items:\n  a: 1\n"]
)
def test_what_does_not_look_like_a_list_is_none(text):
    assert cut_list(text) is None


@given(st.text("items:\n- a", max_size=60))
def test_the_parts_are_all_of_the_text(text):
    listing = cut_list(f"items:\n- {text}")
    if listing is not None:
        size = len(listing.frame) + sum(len(item.text) for item in listing.items)
        assert size == len(f"items:\n- {text}")
