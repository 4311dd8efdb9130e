"""Bookinfo's pages as HTML: the product page, and the one that leads to it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, Final

TITLE: Final = "The Comedy of Errors"
SUMMARY: Final = (
    '<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">Wikipedia Summary</a>: The Comedy of '
    "Errors is one of <b>William Shakespeare's</b> early plays. It is his shortest and one of his most "
    "farcical comedies, with a major part of the humour coming from slapstick and mistaken "
    "identity, in addition "
    "to puns and word play."
)
_STYLE: Final = """
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #1f2937; background: #f9fafb }
header { display: flex; justify-content: space-between; background: #111827; color: #fff; padding: 1rem }
header form { display: flex; gap: .5rem } header input { width: 8rem }
main { max-width: 64rem; margin: auto; padding: 1rem 2rem }
h1, .summary { text-align: center }
.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 3rem }
blockquote { margin: 0 0 1rem; padding-left: 1rem; border-left: 4px solid #d1d5db }
dt { float: left; clear: left; width: 7rem; color: #6b7280 }
.black { color: #000 } .red { color: #dc2626 } .stars { font-size: 1.5rem }
.error { color: #b91c1c } table { border-collapse: collapse }
td, th { border: 1px solid #d1d5db; padding: .3rem .8rem }
"""
_FIELDS: Final = ("type", "pages", "publisher", "language", "ISBN-10", "ISBN-13")


def product_page(user: str, details: tuple[int, Any], reviews: tuple[int, Any]) -> str:
    """The page of the book; what the services said as (status, JSON), which has `error` where they failed."""
    columns = f'<div class="columns"><section>{_details(*details)}</section>'
    columns += f"<section>{_reviews(*reviews)}</section></div>"
    return _page(user, f'<h1>{TITLE}</h1><p class="summary">{SUMMARY}</p>{columns}')


def index_page(user: str, services: Mapping[str, Mapping[str, str]]) -> str:
    """The page that leads to the others; `services` as name: (what it calls: URL)."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(', '.join(calls.values())) or '-'}</td></tr>"
        for name, calls in services.items()
    )
    return _page(
        user,
        "<h1>Hello! This is a simple bookstore application consisting of three services as shown below</h1>"
        f"<table><tr><th>service</th><th>calls</th></tr>{rows}</table>"
        "<h4>Click on one of the links below to auto generate a request to the backend as a real user or a "
        'tester</h4><p><a href="/productpage?u=normal">Normal user</a></p>'
        '<p><a href="/productpage?u=test">Test user</a></p>',
    )


def _details(status: int, said: Any) -> str:
    if status != 200 or not isinstance(said, dict):
        return _error("Error fetching product details!", said)
    rows = "".join(f"<dt>{name}:</dt><dd>{escape(str(said.get(name, '')))}</dd>" for name in _FIELDS)
    return f"<h4>Book Details</h4><dl>{rows}</dl>"


def _reviews(status: int, said: Any) -> str:
    if status != 200 or not isinstance(said, dict):
        return _error("Error fetching product reviews!", said)
    quotes = "".join(
        f"<blockquote><p>{escape(str(one['text']))}</p><small>{escape(str(one['reviewer']))}</small>"
        f"{_rating(one.get('rating'))}</blockquote>"
        for one in said.get("reviews", [])
    )
    pod = escape(str(said.get("podname", "")))
    return f'<h4>Book Reviews</h4>{quotes}<dl><dt>Reviews served by:</dt><dd id="served-by">{pod}</dd></dl>'


def _rating(rating: Any) -> str:
    if not isinstance(rating, dict):
        return ""
    if "stars" not in rating:
        return f'<p class="error">{escape(str(rating.get("error", "")))}</p>'
    stars = min(max(int(rating["stars"]), 0), 5)
    return f'<p class="stars {escape(str(rating["color"]))}">{"★" * stars}{"☆" * (5 - stars)}</p>'


def _error(what: str, said: Any) -> str:
    reason = said.get("error", "") if isinstance(said, dict) else ""
    return f'<h4 class="error">{what}</h4><p>{escape(str(reason))}</p>'


def _page(user: str, body: str) -> str:
    if user:
        who = f'<form action="/logout"><span>{escape(user)}</span> <button>sign out</button></form>'
    else:
        who = (
            '<form method="post" action="/login"><input name="username" placeholder="User Name">'
            '<input name="passwd" type="password" placeholder="Password"><button>Sign in</button></form>'
        )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Simple Bookstore App</title>'
        f"<style>{_STYLE}</style></head><body><header><b>BookInfo Sample</b>{who}</header>"
        f"<main>{body}</main></body></html>"
    )
