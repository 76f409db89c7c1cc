"""Where a provider's batches are: what one place has in flight, no other knows."""

from urllib.parse import urlsplit

#: The provider's name, as `Provider.name` gives it, and the address of its API.
Place = tuple[str, str]

#: Its API has more than one address: they differ by `model.api_version`, and the resource is the host.
_AZURE = "azure.ai.openai"


def is_same_place(one: Place, other: Place) -> bool:
    """Say whether two places are one: whether what the first has in flight answers requests to the second.

    Goes by what the request identity (`Provider.identity`) compares: on Azure the host, so that a batch is found again
    after a change of the API version, which changes no request id; elsewhere the whole address.
    """
    if one[0] != other[0]:
        return False
    if one[0] == _AZURE:
        return urlsplit(one[1]).hostname == urlsplit(other[1]).hostname
    return one[1] == other[1]
