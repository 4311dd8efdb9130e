"""A resource is followed through everything that its API server does, with each change told once."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random

import httpx2
import pytest
import trio

from tests.kube.fake import FakeServer, answer, line, once, status
from tests.waiting import until
from ztunnel.kube.informer import Informer, Removal, Upsert
from ztunnel.kube.resource import PODS, Resource
from ztunnel.kube.watch import STALL_SECONDS, Watcher

POLICIES = Resource("security.istio.io", "v1", "authorizationpolicies", "AuthorizationPolicy", custom=True)
OLDER = Resource("security.istio.io", "v1beta1", "authorizationpolicies", "AuthorizationPolicy", custom=True)


def thing(name, **more):
    return {"metadata": {"name": name, "namespace": "shop"}, **more}


class Followed:
    """What a watcher told, and what is there according to it."""

    def __init__(self, watcher, said, told):
        self.watcher, self.said, self.told = watcher, said, told

    @property
    def informer(self):
        return self.watcher.informer

    @property
    def names(self):
        there = {}
        for change in self.said:
            if isinstance(change, Upsert):
                there[change.name[1]] = change.value
            else:
                del there[change.name[1]]
        return sorted(there)

    async def until(self, condition, step=0.1):
        await until(condition, 7200, step)


@asynccontextmanager
async def followed(server, *resources, page=2):
    """A watcher of the first of these resources (the others are its other versions)."""
    said, told = [], []
    async with server.api() as api, trio.open_nursery() as nursery:
        informer = Informer(resources or (PODS,), Random(1), page=page)
        watcher = Watcher(
            api, informer, said.extend, lambda: told.append((informer.synced, informer.trouble))
        )
        nursery.start_soon(watcher.run)
        yield Followed(watcher, said, told)
        nursery.cancel_scope.cancel()


async def test_a_resource_is_listed_in_pages_and_watched_from_there(autojump_clock):
    server = FakeServer(PODS)
    for name in "abcde":
        server.put(PODS, thing(name))
    async with followed(server) as it:
        await it.until(lambda: it.informer.synced and server.watches)
        assert it.names == ["a", "b", "c", "d", "e"]
        lists = [one.url.params for one in server.requests if "watch" not in one.url.params]
        assert [one.get("limit") for one in lists] == ["2", "2", "2"]
        assert "resourceVersion" not in lists[0]
        server.put(PODS, thing("f"))
        server.put(PODS, thing("a", changed=True))
        server.remove(PODS, "b", "shop")
        await it.until(lambda: it.names == ["a", "c", "d", "e", "f"])
        assert [change.name[1] for change in it.said] == ["a", "b", "c", "d", "e", "f", "a", "b"]
        assert it.told[-1] == (True, "")


async def test_what_happens_between_two_watches_is_told_once(autojump_clock):
    server = FakeServer(PODS)
    server.put(PODS, thing("a"))
    async with followed(server) as it:
        await it.until(lambda: server.watches)
        server.end_watches(httpx2.ReadError("reset"))
        await it.until(lambda: not server.watches)
        server.put(PODS, thing("b"))
        server.remove(PODS, "a", "shop")
        await it.until(lambda: it.names == ["b"])
        assert len(it.said) == 3
        assert len([one for one in server.requests if "watch" not in one.url.params]) == 1


async def test_an_expired_version_costs_a_list_and_only_what_changed_is_told(autojump_clock):
    server = FakeServer(PODS)
    for name in "abc":
        server.put(PODS, thing(name))
    async with followed(server) as it:
        await it.until(lambda: server.watches)
        server.end_watches(httpx2.ReadError("reset"))
        await it.until(lambda: not server.watches)
        server.remove(PODS, "a", "shop")
        server.put(PODS, thing("b", changed=True))
        server.put(PODS, thing("d"))
        server.compact()
        await it.until(lambda: it.names == ["b", "c", "d"])
        again = [
            one
            for one in server.requests
            if "watch" not in one.url.params and "resourceVersion" in one.url.params
        ]
        assert again[0].url.params["resourceVersionMatch"] == "NotOlderThan"
        assert sorted(change.name[1] for change in it.said[3:]) == ["a", "b", "d"]


async def test_an_error_in_the_stream_is_heeded(autojump_clock):
    server = FakeServer(PODS)
    server.put(PODS, thing("a"))
    async with followed(server) as it:
        await it.until(lambda: server.watches)
        server.compact()
        server.end_watches(status(410, "Expired", "too old resource version"))
        server.put(PODS, thing("b"))
        await it.until(lambda: it.names == ["a", "b"])
        server.end_watches(status(500, "InternalError", "etcdserver: leader changed"))
        await it.until(lambda: "leader changed" in it.informer.trouble)
        server.put(PODS, thing("c"))
        await it.until(lambda: it.names == ["a", "b", "c"] and not it.informer.trouble)
        assert len(it.said) == 3


async def test_a_list_whose_continuation_expires_is_begun_again(autojump_clock):
    server = FakeServer(PODS)
    for name in "abcde":
        server.put(PODS, thing(name))

    def forget(request):
        if "continue" in request.url.params and len(server.requests) == 2:
            server.compact()
            server.remove(PODS, "a", "shop")

    server.faults.append(forget)
    async with followed(server) as it:
        await it.until(lambda: it.informer.synced)
        assert it.names == ["b", "c", "d", "e"]


async def test_a_continuation_that_always_expires_gives_way_to_one_whole_list(autojump_clock):
    server = FakeServer(PODS)
    for name in "abcde":
        server.put(PODS, thing(name))
    server.faults.append(lambda request: server.compact() if "continue" in request.url.params else None)
    async with followed(server) as it:
        await it.until(lambda: it.informer.synced)
        assert it.names == ["a", "b", "c", "d", "e"]


async def test_a_watch_that_stands_still_is_taken_up_again(autojump_clock):
    server = FakeServer(PODS)
    async with followed(server) as it:
        await it.until(lambda: server.watches)
        begun = trio.current_time()
        server.watches.clear()  # what happens from now on it does not bring
        server.put(PODS, thing("a"))
        await it.until(lambda: it.names == ["a"])
        assert trio.current_time() - begun == pytest.approx(STALL_SECONDS, abs=2)
        assert len(it.said) == 1


async def test_bookmarks_move_the_version_that_a_watch_goes_on_from(autojump_clock):
    server = FakeServer(PODS)
    async with followed(server) as it:
        await it.until(lambda: server.watches)
        server.version += 50
        server.bookmark()
        await trio.sleep(1)
        server.compact()
        asked = len(server.requests)
        server.end_watches()
        await it.until(lambda: len(server.requests) > asked)
        assert server.requests[-1].url.params["resourceVersion"] == str(server.version)
        assert len([one for one in server.requests if "watch" not in one.url.params]) == 1


@pytest.mark.parametrize("in_stream", [False, True])
async def test_a_server_that_lost_its_newest_versions_is_listed_anew(autojump_clock, in_stream):
    """As after etcd was restored; some servers say so when a watch is asked for, some in its stream."""
    server = FakeServer(PODS)
    server.put(PODS, thing("a"))
    server.version = 9000
    server.put(PODS, thing("b"))
    async with followed(server) as it:
        await it.until(lambda: server.watches)
        server.end_watches(httpx2.ReadError("reset"))
        server.version = 200
        server.objects[PODS.path()] = {}
        server.history.clear()
        if in_stream:
            said = status(504, "Timeout", "Timeout: Too large resource version: 9001, current: 200")
            event = line({"type": "ERROR", "object": said})
            server.faults.append(
                lambda request: (
                    httpx2.Response(200, content=event)
                    if request.url.params.get("watch")
                    and int(request.url.params["resourceVersion"]) > server.version
                    else None
                )
            )
        server.put(PODS, thing("c"))
        await it.until(lambda: it.names == ["c"])
        await it.until(lambda: it.informer.trouble == "")


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (
            answer(403, status(403, "Forbidden", "pods is forbidden")),
            "needs RBAC: list pods: pods is forbidden",
        ),
        (
            answer(401, status(401, "Unauthorized", "Unauthorized")),
            "token or certificate is wrong or has expired",
        ),
        (answer(500, status(500, "InternalError", "boom")), "answers 500 (list pods): boom"),
        (answer(503, {"kind": "other"}), "answers 503"),
        (httpx2.ConnectError("All connection attempts failed"), "no answer from the API server https://fake"),
        (httpx2.Response(200, text="<html>a portal</html>"), "is no JSON"),
        (httpx2.Response(200, json={"items": [{"metadata": {}}]}), "makes no sense"),
        (httpx2.Response(200, json={"items": [7]}), "makes no sense"),
    ],
)
async def test_a_failure_is_said_and_got_over(autojump_clock, failure, words):
    server = FakeServer(PODS)
    server.put(PODS, thing("a"))
    server.faults.append(once(failure, failure))
    async with followed(server) as it:
        await it.until(lambda: it.informer.synced)
        assert it.names == ["a"]
        assert words in it.told[0][1]
        assert it.told[-1] == (True, "")
        assert it.watcher.failures == 2


async def test_a_server_that_asks_for_patience_gets_it(autojump_clock):
    server = FakeServer(PODS)
    busy = answer(429, status(429, "TooManyRequests", "too many requests"), {"Retry-After": "17"}.items())
    server.faults.append(once(busy))
    begun = trio.current_time()
    async with followed(server) as it:
        await it.until(lambda: it.informer.synced)
        assert trio.current_time() - begun >= 17


async def test_failures_in_a_row_wait_longer_with_jitter_and_end_at_half_a_minute(autojump_clock):
    server = FakeServer(PODS)
    times = []
    server.faults.append(lambda _: (times.append(trio.current_time()), answer(500, {}))[1])
    async with followed(server):
        await trio.sleep(600)
    waits = [after - before for before, after in pairwise(times)]
    assert 0.25 <= waits[0] <= 0.5
    assert all(15 <= wait <= 30.1 for wait in waits[7:])
    assert len({round(wait, 3) for wait in waits[7:]}) > 5


async def test_a_server_that_ends_watches_at_once_is_not_asked_without_end(autojump_clock):
    server = FakeServer(PODS)
    server.faults.append(
        lambda request: httpx2.Response(200, content=b"") if "watch" in request.url.params else None
    )
    async with followed(server) as it:
        await trio.sleep(300)
        assert len(server.requests) < 25
        assert "ends watches at once" in it.informer.trouble


async def test_a_server_that_does_not_answer_a_watch_is_in_trouble_within_half_a_minute(autojump_clock):
    """It took the time of a watch that stands still, two minutes and a half, and counted as none."""
    server = FakeServer(PODS)
    server.hangs = lambda request: "watch" in request.url.params
    async with followed(server) as it:
        await it.until(lambda: it.informer.synced)
        begun = trio.current_time()
        await it.until(lambda: it.informer.trouble)
        assert trio.current_time() - begun <= 31
        assert it.informer.trouble == "no answer from https://fake in 30 s (watch pods)"
        assert it.watcher.failures == 1
        server.hangs = lambda _: False
        server.put(PODS, thing("a"))
        await it.until(lambda: it.names == ["a"] and not it.informer.trouble)


async def test_garbage_in_a_stream_ends_the_stream_and_nothing_else(autojump_clock):
    server = FakeServer(PODS)
    async with followed(server) as it:
        for garbage in (
            b"{]\n",
            b"7\n",
            b'{"type":"NEWS","object":{}}\n',
            b'{"type":"ADDED","object":7}\n',
            b"\xff\xfe\n",
            line({"type": "ADDED", "object": {"metadata": {"name": "x"}}}),
        ):
            await it.until(lambda: server.watches)
            server.watches[0].send(garbage)
            await it.until(lambda: "makes no sense" in it.informer.trouble)
        server.put(PODS, thing("a"))
        await it.until(lambda: it.names == ["a"])


async def test_a_kind_that_is_not_installed_is_waited_for_and_may_go_again(autojump_clock):
    server = FakeServer(PODS)
    async with followed(server, POLICIES) as it:
        await it.until(lambda: it.informer.synced)
        assert not it.informer.installed
        assert it.informer.trouble == ""
        server.install(POLICIES)
        server.put(POLICIES, thing("p"))
        await it.until(lambda: it.names == ["p"] and server.watches)
        assert it.informer.installed
        server.uninstall(POLICIES)
        await it.until(lambda: not it.informer.installed)
        assert it.names == []


async def test_not_found_does_not_take_away_what_is_known_while_the_kind_is_defined(autojump_clock):
    """An API server that starts answers 404 for custom resources until it has read their definitions."""
    server = FakeServer(POLICIES)
    server.put(POLICIES, thing("p"))
    async with followed(server, POLICIES) as it:
        await it.until(lambda: server.watches)
        del server.served[POLICIES.path()]
        server.end_watches()
        await trio.sleep(120)
        assert it.names == ["p"]
        assert "served in no version" in it.informer.trouble
        server.served[POLICIES.path()] = POLICIES
        await it.until(lambda: it.informer.trouble == "")
        assert it.said == [it.said[0]]


async def test_a_definition_that_cannot_be_looked_at_takes_nothing_away(autojump_clock):
    server = FakeServer(POLICIES)
    server.put(POLICIES, thing("p"))
    async with followed(server, POLICIES) as it:
        await it.until(lambda: server.watches)
        forbidden = answer(403, status(403, "Forbidden", "no"))
        server.faults.append(lambda request: forbidden if "apiextensions" in request.url.path else None)
        del server.served[POLICIES.path()]
        server.end_watches()
        await trio.sleep(120)
        assert it.names == ["p"]
        assert "needs RBAC: get customresourcedefinitions.apiextensions.k8s.io" in it.informer.trouble


async def test_an_older_version_serves_where_the_newest_is_not(autojump_clock):
    server = FakeServer(OLDER)
    server.put(OLDER, thing("p"))
    async with followed(server, POLICIES, OLDER) as it:
        await it.until(lambda: it.names == ["p"])
        assert it.informer.resource is OLDER


async def test_everything_is_listed_again_now_and_then(autojump_clock):
    server = FakeServer(PODS)
    server.put(PODS, thing("a"))
    async with followed(server) as it:
        await it.until(lambda: server.watches)
        server.objects[PODS.path()].clear()  # the stream has lost an event
        await it.until(lambda: it.names == [], 10)
        assert it.said[1:] == [Removal(("shop", "a"))]


async def test_an_event_that_is_cut_off_is_told_when_it_comes_whole(autojump_clock):
    """A stream that ends within a line: what was cut off is not taken, and not skipped either."""
    server = FakeServer(PODS)
    async with followed(server) as it:
        await it.until(lambda: server.watches)
        whole = line({"type": "ADDED", "object": {"metadata": {"name": "a", "namespace": "shop"}}})
        server.watches[0].send(whole[:-20])
        server.watches[0].send(None)
        server.watches.clear()
        server.put(PODS, thing("a"))
        await it.until(lambda: it.names == ["a"])
        assert len(it.said) == 1


async def test_an_api_server_that_answers_slowly_is_waited_for_and_not_asked_twice(autojump_clock):
    server = FakeServer(PODS)
    server.put(PODS, thing("a"))
    slow = server.handle_async_request

    async def slowly(request):
        await trio.sleep(25)
        return await slow(request)

    server.handle_async_request = slowly
    async with followed(server) as it:
        await it.until(lambda: it.informer.synced)
        assert (it.names, it.watcher.failures) == (["a"], 0)
        assert len(server.requests) == 1


async def test_an_object_that_is_made_anew_under_its_name_is_another_version_and_no_removal(autojump_clock):
    """While the list was behind: removed and made again between two watches."""
    server = FakeServer(PODS)
    server.put(PODS, thing("a"))
    async with followed(server) as it:
        await it.until(lambda: server.watches)
        server.end_watches(httpx2.ReadError("reset"))
        await it.until(lambda: not server.watches)
        server.remove(PODS, "a", "shop")
        server.put(PODS, thing("a", anew=True))
        server.compact()
        await it.until(lambda: len(it.said) > 1)
        assert [type(change) for change in it.said] == [Upsert, Upsert]
        assert it.said[1].value["anew"]
