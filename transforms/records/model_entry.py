"""What is known of one model: an entry of the model manifest (pipelines/models/*.yaml, or a user's own file)."""

from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

#: Providers whose models are listed; the others serve what their owner has put there.
ListedProvider = Literal["openai", "azure_openai", "anthropic", "openrouter"]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^\S+$")]
ModelStatus = Literal["current", "deprecated", "overdue", "retired"]
Level = Literal["error", "warning"]


class ModelEntry(BaseModel):
    """One model of one provider. None: not known, and what is not known never refuses a job.

    Attributes:
        provider: as the job file names it.
        name: the dated snapshot where there is one; aliases: other names that reach it.
        released: first day.
        deprecated: the day its end was announced.
        retired: the day from which it is not served any more; it may lie ahead.
        successor: what the provider recommends instead.
        context_tokens: of prompt and answer together; max_output_tokens: of the answer.
        batch: the provider's batch API takes it.
        structured_output: it holds answers to a JSON Schema.
        reasoning: it thinks before it answers, at the answer's price.
        accepts, refuses: parameters by their wire names (`reasoning_effort` for every provider's effort); a refused one
            gets HTTP 400 at any value but its default. What is in neither is not known; accepts wins.
        refuses_while_reasoning: refused as well, unless the effort is "none".
        efforts: values of `reasoning_effort` that it takes; default_effort: its effort when a request names none.
        apis: APIs that serve it; None: all that the provider has, or not known.
        priced: the price table is known to have its price.
        source: the page that says so; reviewed: the day someone last read it over.
        dates_as_of: how new that page was, where it was older than the review; a later retirement is an announcement.
        note: what else a person should know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    provider: ListedProvider
    name: ModelName
    aliases: tuple[ModelName, ...] = ()
    released: date | None = None
    deprecated: date | None = None
    retired: date | None = None
    successor: ModelName | None = None
    context_tokens: Annotated[int, Field(gt=0)] | None = None
    max_output_tokens: Annotated[int, Field(gt=0)] | None = None
    batch: bool | None = None
    structured_output: bool | None = None
    reasoning: bool | None = None
    accepts: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    refuses_while_reasoning: tuple[str, ...] = ()
    efforts: tuple[str, ...] | None = None
    default_effort: str | None = None
    apis: tuple[Literal["chat_completions", "responses"], ...] | None = None
    priced: bool = True
    source: str | None = None
    reviewed: date | None = None
    dates_as_of: date | None = None
    note: str | None = None

    @model_validator(mode="after")
    def _dates_in_order(self) -> Self:
        named = [("released", self.released), ("deprecated", self.deprecated), ("retired", self.retired)]
        known = [(name, day) for name, day in named if day is not None]
        for (earlier, first), (later, second) in pairwise(known):
            if second < first:
                msg = f"{later} is {second}, before {earlier} ({first}); correct one of the two"
                raise ValueError(msg)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its aliases."""
        return (self.name, *self.aliases)

    def status(self, today: date) -> ModelStatus:
        """Say how the model stands today.

        Returns:
            retired: its day has come, and what says so is no older than that day. overdue: the day has come, but was
            only announced when the entry was written, and announcements are put off at times. deprecated: its end is
            announced. Else current.
        """
        if self.retired is not None and self.retired <= today:
            known_on = self.dates_as_of or self.reviewed
            return "overdue" if known_on is not None and known_on < self.retired else "retired"
        return "current" if self.retired is None and self.deprecated is None else "deprecated"


@dataclass(frozen=True, slots=True)
class ModelFinding:
    """One thing about a job and its model that can't work (error), or that its owner should know (warning).

    Attributes:
        code: what kind of finding, stable: unknown_model, no_model_declared, retired, overdue, deprecated,
            refused_param, effort, api, output_limit, context, batch, structured_output.
        key: path of the job's key to look at.
        says: what is so, and the cure.
    """

    level: Level
    code: str
    key: str
    says: str

    @property
    def line(self) -> str:
        """The finding as one line."""
        return f"{self.key}: {self.says}"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"level": self.level, "code": self.code, "key": self.key, "says": self.says}
