"""Annotators with accounts of their own, made as people make them: by the invitation link."""

from __future__ import annotations

import secrets

import httpx

from labelloop.studio.client import Studio
from labelloop.studio.wiring import StudioWiring


def join(url: str, owner_token: str, name: str) -> Studio:
    """Sign up by the organisation's invitation; Label Studio under the new account."""
    owner = Studio(url, owner_token)
    try:
        return sign_up(url, StudioWiring(owner.http).invitation(url), name)
    finally:
        owner.close()


def sign_up(url: str, invitation: str, name: str) -> Studio:
    """What a person does at the address of an invitation."""
    with httpx.Client(base_url=url, timeout=30, follow_redirects=True) as browser:
        browser.get(invitation).raise_for_status()
        form = {
            "email": f"{name}@example.com", "password": secrets.token_urlsafe(12), "allow_newsletters": "false",
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
        }  # fmt: skip
        browser.post(invitation, data=form, headers={"Referer": invitation}).raise_for_status()
        token = browser.get("/api/current-user/token")
        token.raise_for_status()
        return Studio(url, token.json()["token"])
