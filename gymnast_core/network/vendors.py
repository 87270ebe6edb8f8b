"""Whose server it is: a vendor's own key, and whom it bills, are that vendor's business and nobody else's."""

from __future__ import annotations

import os
from dataclasses import dataclass

from gymnast_core.network.address import Address


@dataclass(frozen=True)
class Vendor:
    """A service that everybody knows."""

    base_url: str
    host: str
    variable: str
    """Environment variable in which its users keep their key."""
    payer: tuple[tuple[str, str], ...] = ()
    """(header, environment variable) of who pays, as its own clients read them."""

    def serves(self, address: Address) -> bool:
        """Whether the server is this vendor's own."""
        return address.host == self.host

    def key_variable(self, named: str | None, address: Address) -> str | None:
        """The variable of the key for a server: the one that the user `named`, else the vendor's for its own server
        alone. None: no key is sent."""
        return named if named is not None or not self.serves(address) else self.variable

    def payer_headers(self, address: Address) -> dict[str, str]:
        """Headers that say who pays; none for others."""
        found: dict[str, str] = {}
        for header, variable in self.payer if self.serves(address) else ():
            value = os.environ.get(variable, "").strip()
            if value and value.isascii() and value.isprintable():
                found[header] = value
        return found


OPENAI = Vendor(
    "https://api.openai.com/v1",
    "api.openai.com",
    "OPENAI_API_KEY",
    (("OpenAI-Organization", "OPENAI_ORG_ID"), ("OpenAI-Project", "OPENAI_PROJECT_ID")),
)
ANTHROPIC = Vendor("https://api.anthropic.com", "api.anthropic.com", "ANTHROPIC_API_KEY")
