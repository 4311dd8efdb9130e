"""Manifests that change, and what a translator makes of them."""

from __future__ import annotations

from ztunnel.control.delta import Delta
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.translation import Translator


class Written:
    """A translator over manifests."""

    def __init__(self, translator: Translator) -> None:
        self.translator = translator
        self.inventory = Inventory()

    def change(self, text: str) -> Delta:
        """The manifests are these now; what is another then."""
        before, self.inventory = self.inventory, gather({"x.yaml": text}, self.inventory)
        assert self.inventory.faults == ()
        gone = dict.fromkeys(before.objects.keys() - self.inventory.objects.keys())
        return self.translator.update({**gone, **self.inventory.objects})

    def told_of(self, attribute: str, policy: str) -> set[str]:
        """The services whose waypoint is told of that policy, and of no other of its kind."""
        return {
            one.hostname.partition(".")[0]
            for one in self.translator.addresses.values()
            if getattr(one, attribute, ()) == (policy,)
        }
