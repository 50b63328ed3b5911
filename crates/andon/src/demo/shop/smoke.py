"""Asks a deployed shop whether it can sell: run in an environment, before any user sees it."""

import json
import os
import urllib.request


def ask(path):
    with urllib.request.urlopen(os.environ["ANDON_URL"] + path, timeout=5) as said:
        return json.load(said)


assert ask("/healthz")["ok"]
assert "mug" in ask("/")["items"]
assert ask("/checkout?item=mug&count=2&region=de")["goods"] > 0
print("it sells")
