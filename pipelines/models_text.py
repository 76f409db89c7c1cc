"""The model manifest on the terminal; draws what `models_command.list_models` found."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {"current": "", "deprecated": "yellow", "overdue": "yellow", "retired": "dim"}
#: Columns of a terminal that shows each ability in a column of its own.
_WIDE = 110
#: Terminals below this width get names, prices and ends alone, for no name and no price may be cut.
_TIGHT = 72
_LEGEND = (
    "Tokens in thousands (k) or millions (M); prices in US dollars per million tokens, in / out. "
    "A dash: not known, and then nothing is refused for it. ends: the day from which it is not served; with a question "
    "mark, that day was announced and has passed."
)
_LETTERS = "B: batches, S: answers to a schema, R: reasons; . where it does not, ? where it is not known."
_OWN = "Describe a model that is missing in model.entry, or in a file that model.manifest names."


def draw_models(facts: dict[str, Any], console: Console) -> None:
    """Draw a table for each provider, then what the columns mean."""
    models = facts["models"]
    for provider in dict.fromkeys(model["provider"] for model in models):
        listed = [model for model in models if model["provider"] == provider]
        shown = [model for model in listed if model["status"] != "retired" or model["is_jobs"]]
        console.print(_heading(provider, listed))
        is_tight = console.width < _TIGHT
        console.print(_short_table(shown) if is_tight else _table(shown, is_wide=console.width >= _WIDE))
        gone = [model["name"] for model in listed if model not in shown]
        if gone:
            console.print(Text(f"Retired: {', '.join(gone)}", style="dim"))
        console.print()
    if facts["job"] is not None and any(model["is_jobs"] for model in models):
        console.print(Text.assemble(("> ", "bold green"), f"the model of {facts['job']}"))
    console.print(Text(_LEGEND, style="dim"))
    if _TIGHT <= console.width < _WIDE:
        console.print(Text(_LETTERS, style="dim"))
    console.print(Text(_OWN, style="dim"))


def _heading(provider: str, models: list[dict[str, Any]]) -> Text:
    reviewed = max((model["reviewed"] for model in models if model["reviewed"]), default=None)
    words = f"  {len(models):,} models" + (f", reviewed {reviewed}" if reviewed else "")
    return Text.assemble((provider, "bold"), (words, "dim"))


def _table(models: list[dict[str, Any]], *, is_wide: bool) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("model", overflow="fold")
    for name in ("context", "output"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("batch", "schema", "reasons") if is_wide else ("can",):
        table.add_column(name, no_wrap=True)
    for name in ("real time", "in batches"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ends", no_wrap=True)
    for model in models:
        prices = model["usd_per_million_tokens"]
        abilities = [model["batch"], model["structured_output"], model["reasoning"]]
        table.add_row(
            Text(">", style="bold green") if model["is_jobs"] else "",
            _name(model),
            _tokens(model["context_tokens"]),
            _tokens(model["max_output_tokens"]),
            *([_yes(value) for value in abilities] if is_wide else [_letters(abilities)]),
            _price(prices["real_time"]),
            _price(prices["batch"]),
            _end(model),
        )
    return table


def _short_table(models: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("real time", justify="right", no_wrap=True)
    table.add_column("ends", no_wrap=True)
    for model in models:
        name = Text.assemble(("> ", "bold green") if model["is_jobs"] else "", model["name"])
        table.add_row(name, _price(model["usd_per_million_tokens"]["real_time"]), _end(model))
    return table


def _name(model: dict[str, Any]) -> Text:
    text = Text(model["name"], style="dim" if model["status"] == "retired" else "bold")
    if model["aliases"]:
        text.append(f"  {', '.join(model['aliases'])}", style="dim not bold")
    return text


def _end(model: dict[str, Any]) -> Text:
    style = _STYLES[model["status"]]
    if model["status"] == "overdue":
        return Text(f"{model['retired']}?", style=style)
    if model["retired"] is not None:
        return Text(model["retired"], style=style)
    return Text("deprecated" if model["status"] == "deprecated" else "", style=style)


def _tokens(count: int | None) -> str:
    if count is None:
        return "-"
    if count >= 1_000_000:
        return f"{count / 1_000_000:.3g}M"
    return f"{count / 1000:.3g}k"


def _yes(value: bool | None) -> Text:
    return Text("-", style="dim") if value is None else Text("yes" if value else "no", style="" if value else "yellow")


def _letters(values: list[bool | None]) -> str:
    return "".join(
        "?" if value is None else letter if value else "." for letter, value in zip("BSR", values, strict=True)
    )


def _price(rates: dict[str, str] | None) -> str:
    return "-" if rates is None else f"{rates['input']} / {rates['output']}"
