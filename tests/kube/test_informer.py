"""What an informer tells adds up to what the server has, whatever happens in between, and nothing twice."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.informer import RESYNC_SECONDS, Informer, List, Page, Removal, Upsert, Watch
from ztunnel.kube.resource import PODS


def thing(name, version):
    return {"metadata": {"name": name, "namespace": "s", "resourceVersion": str(version)}}


class Server:
    """Objects, their versions, and the events since the last compaction."""

    def __init__(self):
        self.version, self.oldest = 1, 0
        self.objects, self.events, self.snapshots = {}, [], {}

    def put(self, name):
        self.version += 1
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self.objects[name] = self.version
        self.events.append((self.version, kind, thing(name, self.version)))

    def remove(self, name):
        if name in self.objects:
            del self.objects[name]
            self.version += 1
            self.events.append((self.version, "DELETED", thing(name, self.version)))

    def compact(self):
        self.oldest = self.version
        self.snapshots.clear()


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["put", "remove"]), st.sampled_from("abcd"))
    | st.tuples(st.sampled_from(["compact", "step", "step", "step", "lose"]), st.none()),
    max_size=40,
)


def step(server, informer, now):
    """Carry out one request, as a server would: a page, or a watch that brings all there is and ends."""
    wanted = informer.request(now)
    if isinstance(wanted, List):
        token = wanted.params.get("continue")
        if token and token not in server.snapshots:
            return informer.failed(ApiFailure("expired", 410, "Expired")) or []
        version, items = server.snapshots[token] if token else (
            server.version, [thing(name, at) for name, at in sorted(server.objects.items())]
        )  # fmt: skip
        page, rest = items[:2], items[2:]
        remains = ""
        if rest:
            remains = f"{version}-{len(rest)}-{len(server.snapshots)}"
            server.snapshots[remains] = version, rest
        return informer.listed(Page(page, str(version), remains), now)
    since = int(wanted.params["resourceVersion"])
    if since < server.oldest:
        return informer.failed(ApiFailure("expired", 410, "Expired")) or []
    informer.opened()
    found = [
        informer.received({"type": kind, "object": value}) for at, kind, value in server.events if at > since
    ]
    informer.ended(60.0)
    return [one for one in found if one is not None]


@settings(max_examples=40)
@given(ACTIONS)
def test_changes_add_up_to_what_is_there(actions):
    server, informer, there, now = Server(), Informer([PODS], Random(1), page=2), {}, 0.0

    def take(changes):
        for change in changes:
            if isinstance(change, Upsert):
                version = change.value["metadata"]["resourceVersion"]
                assert there.get(change.name) != version, "told twice"
                there[change.name] = version
            else:
                assert isinstance(change, Removal)
                del there[change.name]

    for action, name in actions:
        now += 1
        if action == "step":
            take(step(server, informer, now))
        elif action == "lose":
            informer.request(now)
            informer.failed(ApiFailure("reset"))
        elif name:
            getattr(server, action)(name)
        else:
            server.compact()
    for _ in range(12):
        now += 1
        take(step(server, informer, now))
    assert informer.synced
    assert there == {("s", name): str(version) for name, version in server.objects.items()}
    assert informer.count == len(server.objects)


def test_nothing_is_synced_before_the_last_page():
    informer = Informer([PODS], Random(1))
    informer.request(0)
    informer.listed(Page([thing("a", 1)], "5", "more"), 0)
    assert not informer.synced
    assert informer.request(0).params["continue"] == "more"
    informer.listed(Page([thing("b", 2)], "5"), 0)
    assert informer.synced
    wanted = informer.request(0)
    assert isinstance(wanted, Watch)
    assert (wanted.params["resourceVersion"], wanted.params["allowWatchBookmarks"]) == ("5", "true")


def test_selectors_are_part_of_every_request():
    informer = Informer([PODS], Random(1), {"fieldSelector": "a=b"})
    assert informer.request(0).params["fieldSelector"] == "a=b"
    informer.listed(Page([], "5"), 0)
    assert informer.request(0).params["fieldSelector"] == "a=b"


def test_it_is_listed_again_after_an_hour():
    informer = Informer([PODS], Random(1))
    informer.request(0)
    informer.listed(Page([], "5"), 0)
    assert isinstance(informer.request(RESYNC_SECONDS - 1), Watch)
    again = informer.request(RESYNC_SECONDS)
    assert isinstance(again, List)
    assert again.params["resourceVersionMatch"] == "NotOlderThan"


FIELDS = st.sampled_from(["type", "object", "metadata", "name", "resourceVersion"])
VALUES = st.recursive(
    st.none() | st.integers() | st.sampled_from(["ADDED", "BOOKMARK", "DELETED", ""]),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(FIELDS, each),
    max_leaves=8,
)


@settings(max_examples=40)
@given(VALUES)
def test_garbage_is_an_error_and_changes_nothing(value):
    informer = Informer([PODS], Random(1))
    informer.request(0)
    informer.listed(Page([thing("a", 1)], "5"), 0)
    if isinstance(value, dict):
        try:
            informer.received(value)
        except PeerError:
            assert informer.count == 1
    with pytest.raises(PeerError):
        informer.listed(Page([{"metadata": {"name": ""}}], "5"), 0)
