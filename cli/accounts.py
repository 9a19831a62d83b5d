"""Annotators with accounts of their own, made as people make them: by the invitation link."""

from __future__ import annotations

import secrets
from urllib.parse import urljoin

import httpx

from labelloop.studio import Studio


def join(url: str, owner_token: str, name: str) -> Studio:
    """Sign up by the organisation's invitation; Label Studio under the new account."""
    invited = httpx.get(f"{url}/api/invite", headers={"Authorization": f"Token {owner_token}"}, timeout=30)
    invited.raise_for_status()
    with httpx.Client(base_url=url, timeout=30, follow_redirects=True) as browser:
        page = urljoin(url, invited.json()["invite_url"])
        browser.get(page).raise_for_status()
        form = {
            "email": f"{name}@example.com", "password": secrets.token_urlsafe(12), "allow_newsletters": "false",
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
        }  # fmt: skip
        browser.post(page, data=form, headers={"Referer": page}).raise_for_status()
        token = browser.get("/api/current-user/token")
        token.raise_for_status()
        return Studio(url, token.json()["token"])
