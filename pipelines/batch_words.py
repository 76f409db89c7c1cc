"""The audit's words for provider batches that more than one command looks for."""

#: Mode of a batch that went by a provider's batch API.
MODE = "provider_batch_api"
#: Statuses in the audit of a batch that its run left for the next one.
LEFT = frozenset({"submitted", "held_back", "unresolved", "interrupted"})
