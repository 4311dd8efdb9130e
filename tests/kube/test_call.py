"""Requests go where the API has them, and what comes back is a value or a failure in plain words."""

import httpx2
import pytest

from tests.kube.fake import answer, status
from ztunnel.kube.call import APPLY, Api
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.kube.resource import CONFIG_MAPS, CRDS, NODES, PODS, SERVICE_ACCOUNTS, TOKEN_REVIEWS


async def asked(use, response=None):
    """The one request that `use` makes, and what it is given."""
    seen = []

    def transport(request):
        seen.append(request)
        return response or httpx2.Response(200, json={"ok": True})

    async with httpx2.AsyncClient(
        transport=httpx2.MockTransport(transport), base_url="https://api"
    ) as client:
        value = await use(Api(client, "https://api"))
    return seen[0], value


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda api: api.get(PODS, "a", "shop"), "GET /api/v1/namespaces/shop/pods/a"),
        (lambda api: api.list(PODS, params={"limit": "5"}), "GET /api/v1/pods?limit=5"),
        (
            lambda api: api.create(TOKEN_REVIEWS, {"spec": {}}),
            "POST /apis/authentication.k8s.io/v1/tokenreviews",
        ),
        (
            lambda api: api.create(SERVICE_ACCOUNTS, {"metadata": {"name": "web"}}, "shop", "token"),
            "POST /api/v1/namespaces/shop/serviceaccounts/web/token",
        ),
        (
            lambda api: api.create(CONFIG_MAPS, {"metadata": {"name": "c"}}, "shop"),
            "POST /api/v1/namespaces/shop/configmaps",
        ),
        (
            lambda api: api.update(PODS, {"metadata": {"name": "a", "namespace": "shop"}}, "status"),
            "PUT /api/v1/namespaces/shop/pods/a/status",
        ),
        (lambda api: api.delete(PODS, "a", "shop"), "DELETE /api/v1/namespaces/shop/pods/a"),
        (
            lambda api: api.patch(Request("patch", PODS, "shop", "a"), {}, APPLY, {"fieldManager": "z"}),
            "PATCH /api/v1/namespaces/shop/pods/a?fieldManager=z",
        ),
    ],
)
async def test_a_request_goes_where_the_api_has_it(use, expected):
    request, value = await asked(use)
    assert f"{request.method} {request.url.raw_path.decode()}" == expected
    assert value == {"ok": True}


async def test_of_some_resources_only_the_metadata_is_asked_for():
    request, _ = await asked(lambda api: api.list(NODES))
    assert request.headers["accept"] == "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    request, _ = await asked(lambda api: api.get(CRDS, "x"))
    assert request.headers["accept"] == "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    request, _ = await asked(lambda api: api.list(PODS))
    assert request.headers["accept"] == "application/json"


async def test_a_patch_says_what_kind_it_is():
    request, _ = await asked(lambda api: api.patch(Request("patch", PODS, "shop", "a"), {"x": 1}))
    assert (request.headers["content-type"], request.content) == ("application/merge-patch+json", b'{"x": 1}')


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (
            answer(409, status(409, "Conflict", "changed")),
            "somebody else changed it: get pods a in namespace shop",
        ),
        (httpx2.Response(200, text="[]"), "is no object"),
        (httpx2.Response(200, text="{"), "is no JSON"),
    ],
)
async def test_what_is_no_good_answer_is_a_failure(response, words):
    with pytest.raises(ApiFailure, match=words):
        await asked(lambda api: api.get(PODS, "a", "shop"), response)
